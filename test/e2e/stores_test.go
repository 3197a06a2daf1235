package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// stores are the four real stores, and the part of each that is one test's alone.
type stores struct {
	databaseURL string // of a new database
	database    *pgxpool.Pool
	redisURL    string // of a logical database that was empty
	redis       *redis.Client
	elastic     string // the server's URL
	prefix      string // of index names
	neo4jURL    string
	neo4jUser   string
	neo4jSecret string
	graph       neo4j.DriverWithContext
	space       string // of node keys
}

// required reads a variable without which no test of this package can run.
func required(t *testing.T, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		t.Fatalf("%s is not set: run tests by way of `make test`", variable)
	}
	return value
}

func openStores(t *testing.T) *stores {
	t.Helper()
	name := "e2e-" + random()
	s := &stores{prefix: name, space: name}
	s.openDatabase(t, strings.ReplaceAll(name, "-", "_"))
	s.openRedis(t)
	s.openElasticsearch(t)
	s.openNeo4j(t)
	return s
}

func (s *stores) openDatabase(t *testing.T, name string) {
	t.Helper()
	server := required(t, "LAYERS_TEST_DATABASE_URL")
	execute := func(statement string) {
		conn, err := pgx.Connect(context.Background(), server)
		require.NoError(t, err)
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), statement)
		require.NoError(t, err)
	}
	execute("CREATE DATABASE " + name)
	t.Cleanup(func() { execute("DROP DATABASE " + name + " WITH (FORCE)") })
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Path = "/" + name
	s.databaseURL = u.String()
	s.database, err = pgxpool.New(context.Background(), s.databaseURL)
	require.NoError(t, err)
	t.Cleanup(s.database.Close)
}

// openRedis picks a logical database that holds nothing, since asynq's keys have no
// prefix.
func (s *stores) openRedis(t *testing.T) {
	t.Helper()
	options, err := redis.ParseURL(required(t, "LAYERS_TEST_REDIS_URL"))
	require.NoError(t, err)
	server := redis.NewClient(options)
	defer server.Close()
	answer, err := server.ConfigGet(t.Context(), "databases").Result()
	require.NoError(t, err)
	databases, err := strconv.Atoi(answer["databases"])
	require.NoError(t, err)
	for range 100 {
		options.DB = 1 + mathrand.IntN(databases-1)
		s.redis = redis.NewClient(options)
		size, err := s.redis.DBSize(t.Context()).Result()
		require.NoError(t, err)
		if size == 0 {
			break
		}
		require.NoError(t, s.redis.Close())
		s.redis = nil
	}
	require.NotNil(t, s.redis, "none of Redis's %d databases is empty", databases)
	s.redisURL = fmt.Sprintf("redis://%s/%d", options.Addr, options.DB)
	t.Cleanup(func() {
		require.NoError(t, s.redis.FlushDB(context.Background()).Err())
		require.NoError(t, s.redis.Close())
	})
}

func (s *stores) openElasticsearch(t *testing.T) {
	t.Helper()
	s.elastic = strings.TrimSuffix(required(t, "LAYERS_TEST_ELASTICSEARCH_URL"), "/")
	t.Cleanup(func() {
		var indexes map[string]any
		s.search(t, http.MethodGet, "/"+s.prefix+"-*", nil, &indexes)
		for name := range indexes {
			s.search(t, http.MethodDelete, "/"+name, nil, nil)
		}
	})
}

// search asks Elasticsearch, without any client of the program.
func (s *stores) search(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(t, err)
		content = strings.NewReader(string(encoded))
	}
	request, err := http.NewRequest(method, s.elastic+path, content)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, "%s %s: %s", method, path, raw)
	if answer != nil {
		require.NoError(t, json.Unmarshal(raw, answer))
	}
}

func (s *stores) openNeo4j(t *testing.T) {
	t.Helper()
	s.neo4jURL = required(t, "LAYERS_TEST_NEO4J_URL")
	s.neo4jUser, s.neo4jSecret = os.Getenv("LAYERS_TEST_NEO4J_USER"), os.Getenv("LAYERS_TEST_NEO4J_PASSWORD")
	auth := neo4j.NoAuth()
	if s.neo4jUser != "" {
		auth = neo4j.BasicAuth(s.neo4jUser, s.neo4jSecret, "")
	}
	var err error
	s.graph, err = neo4j.NewDriverWithContext(s.neo4jURL, auth)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, statement := range []string{
			"MATCH (n:%s)-[e]->() WHERE n.key STARTS WITH $space CALL (e) { DELETE e } IN TRANSACTIONS OF 10000 ROWS",
			"MATCH (n:%s) WHERE n.key STARTS WITH $space CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS",
		} {
			for _, label := range []string{"Record", "Knowledge", "External"} {
				s.cypher(t, fmt.Sprintf(statement, label))
			}
		}
		require.NoError(t, s.graph.Close(context.Background()))
	})
}

// cypher runs a statement; $space is how the test's keys begin.
func (s *stores) cypher(t *testing.T, statement string) []*neo4j.Record {
	t.Helper()
	session := s.graph.NewSession(context.Background(), neo4j.SessionConfig{})
	defer session.Close(context.Background())
	result, err := session.Run(context.Background(), statement, map[string]any{"space": "~" + s.space + "/"})
	require.NoError(t, err)
	rows, err := result.Collect(context.Background())
	require.NoError(t, err)
	return rows
}

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
