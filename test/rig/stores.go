package rig

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
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Stores are the four real stores, and the part of each that is one test's alone.
type Stores struct {
	DatabaseURL string // of a new database
	Database    *pgxpool.Pool
	RedisURL    string // of a logical database that was empty
	Redis       *redis.Client
	Elastic     string // the server's URL
	Prefix      string // of index names
	Neo4jURL    string
	Neo4jUser   string
	Neo4jSecret string
	Graph       neo4j.DriverWithContext
	Space       string // of node keys

	variable func(name string) string // says where servers are
	own      bool                     // the servers end with the test: nothing has to be removed from them
}

// required reads a variable without which no test can run.
func (s *Stores) required(t *testing.T, variable string) string {
	t.Helper()
	value := s.variable(variable)
	if value == "" {
		t.Fatalf("%s is not set: run tests by way of `make test`", variable)
	}
	return value
}

// OpenStores makes a test's part of all four stores.
func OpenStores(t *testing.T) *Stores {
	t.Helper()
	return open(t, os.Getenv, false)
}

func open(t *testing.T, variable func(string) string, own bool) *Stores {
	t.Helper()
	s := openQueues(t, variable, own)
	s.openElasticsearch(t)
	s.openNeo4j(t)
	return s
}

// OpenQueues makes a test's part of PostgreSQL and Redis, without which the indexer
// does not run.
func OpenQueues(t *testing.T) *Stores {
	t.Helper()
	return openQueues(t, os.Getenv, false)
}

func openQueues(t *testing.T, variable func(string) string, own bool) *Stores {
	t.Helper()
	name := "test-" + random()
	s := &Stores{Prefix: name, Space: name, variable: variable, own: own}
	s.openDatabase(t, strings.ReplaceAll(name, "-", "_"))
	s.openRedis(t)
	return s
}

// Direct are settings that have a deployment reach the servers without proxies, so
// that it sees of them what there is to be seen: connections refused, too.
func (s *Stores) Direct() []string {
	return []string{"REDIS_URL=" + s.RedisURL, "ELASTICSEARCH_URL=" + s.Elastic, "NEO4J_URL=" + s.Neo4jURL}
}

func (s *Stores) openDatabase(t *testing.T, name string) {
	t.Helper()
	server := s.required(t, postgresVariable)
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
	s.DatabaseURL = u.String()
	s.Database, err = pgxpool.New(context.Background(), s.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(s.Database.Close)
}

func (s *Stores) openRedis(t *testing.T) {
	t.Helper()
	s.Redis, s.RedisURL = LogicalRedis(t, s.required(t, "LAYERS_TEST_REDIS_URL"))
	if !s.own {
		t.Cleanup(func() { require.NoError(t, s.Redis.FlushDB(context.Background()).Err()) })
	}
}

// LogicalRedis gives a test one of a server's logical databases for itself, since
// asynq's keys have no prefix: who shared its queues would take its tasks. The caller
// empties it in the end.
func LogicalRedis(t testing.TB, server string) (client *redis.Client, address string) {
	t.Helper()
	options, err := redis.ParseURL(server)
	require.NoError(t, err)
	options.DB = 0
	claims := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, claims.Close()) })
	answer, err := claims.ConfigGet(t.Context(), "databases").Result()
	require.NoError(t, err)
	databases, err := strconv.Atoi(answer["databases"])
	require.NoError(t, err)
	for range 200 {
		options.DB = 1 + mathrand.IntN(databases-1)
		if client = claimRedis(t, claims, options); client != nil {
			u, err := url.Parse(server)
			require.NoError(t, err)
			u.Path = "/" + strconv.Itoa(options.DB)
			return client, u.String()
		}
	}
	t.Fatalf("none of Redis's %d databases is free", databases)
	return nil, ""
}

// claimRedis opens a logical database that is nobody's, or returns nil. One that is
// empty may be somebody's who has not written yet, so claims are in database 0. That of
// a test which was killed ends after an hour.
func claimRedis(t testing.TB, claims *redis.Client, options *redis.Options) *redis.Client {
	t.Helper()
	claim := fmt.Sprintf("layers-test:database:%d", options.DB)
	claimed, err := claims.SetNX(t.Context(), claim, t.Name(), time.Hour).Result()
	require.NoError(t, err)
	if !claimed {
		return nil
	}
	client := redis.NewClient(options)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		_ = claims.Del(context.Background(), claim).Err() // a server of the test's own may have ended
	})
	size, err := client.DBSize(t.Context()).Result()
	require.NoError(t, err)
	if size > 0 {
		return nil
	}
	return client
}

func (s *Stores) openElasticsearch(t *testing.T) {
	t.Helper()
	s.Elastic = strings.TrimSuffix(s.required(t, "LAYERS_TEST_ELASTICSEARCH_URL"), "/")
	if s.own {
		return
	}
	t.Cleanup(func() {
		var indexes map[string]any
		s.Search(t, http.MethodGet, "/"+s.Prefix+"-*", nil, &indexes)
		for name := range indexes {
			s.Search(t, http.MethodDelete, "/"+name, nil, nil)
		}
	})
}

// Search asks Elasticsearch, without any client of the program.
func (s *Stores) Search(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(t, err)
		content = strings.NewReader(string(encoded))
	}
	request, err := http.NewRequest(method, s.Elastic+path, content)
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

func (s *Stores) openNeo4j(t *testing.T) {
	t.Helper()
	s.Neo4jURL = s.required(t, "LAYERS_TEST_NEO4J_URL")
	s.Neo4jUser, s.Neo4jSecret = s.variable("LAYERS_TEST_NEO4J_USER"), s.variable("LAYERS_TEST_NEO4J_PASSWORD")
	auth := neo4j.NoAuth()
	if s.Neo4jUser != "" {
		auth = neo4j.BasicAuth(s.Neo4jUser, s.Neo4jSecret, "")
	}
	var err error
	s.Graph, err = neo4j.NewDriverWithContext(s.Neo4jURL, auth)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Graph.Close(context.Background())) })
	if s.own {
		return
	}
	t.Cleanup(func() {
		for _, statement := range []string{
			"MATCH (n:%s)-[e]->() WHERE n.key STARTS WITH $space CALL (e) { DELETE e } IN TRANSACTIONS OF 10000 ROWS",
			"MATCH (n:%s) WHERE n.key STARTS WITH $space CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS",
		} {
			for _, label := range []string{"Record", "Knowledge", "External"} {
				s.Cypher(t, fmt.Sprintf(statement, label))
			}
		}
	})
}

// Cypher runs a statement; $space is how the test's keys begin.
func (s *Stores) Cypher(t *testing.T, statement string) []*neo4j.Record {
	t.Helper()
	session := s.Graph.NewSession(context.Background(), neo4j.SessionConfig{})
	defer session.Close(context.Background())
	result, err := session.Run(context.Background(), statement, map[string]any{"space": "~" + s.Space + "/"})
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
