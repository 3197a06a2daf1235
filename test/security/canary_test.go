package security

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store/storetest"
	"github.com/layers-pub/layers-appview/test/rig"
)

// canaries are values that stand for secrets, by where they are set. No two runs have
// the same.
type canaries map[string]string

// make plants one.
func (c canaries) make(where string) string {
	c[where] = "canary" + rand.Text()
	return c[where]
}

// found names the canaries that are in a text, in any form in which they may be written.
func (c canaries) found(text string) (where []string) {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		value := c[name]
		forms := []string{value, hex.EncodeToString([]byte(value)), url.QueryEscape(value)}
		for shift := range 3 { // base64 of it, whatever stands before it
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + value))
			forms = append(forms, encoded[4:len(encoded)-4])
		}
		if slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(form)) }) {
			where = append(where, name)
		}
	}
	return where
}

func (c canaries) absent(t *testing.T, text, from string) {
	t.Helper()
	if found := c.found(text); len(found) > 0 {
		t.Errorf("%s tells the secrets of %v", from, found)
	}
}

func TestCanariesAreFoundWhereTheyAre(t *testing.T) {
	t.Parallel()
	c := canaries{}
	secret := c.make("SECRET")
	for _, text := range []string{
		"password=" + secret + "&", strings.ToLower(secret), hex.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte("elastic:" + secret)), base64.RawURLEncoding.EncodeToString([]byte("a:" + secret + ":b")), base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		require.Equal(t, []string{"SECRET"}, c.found("before "+text+" after"), text)
	}
	require.Empty(t, c.found(secret[:20]+" "+rand.Text()))
}

// without is an environment without variables that begin so.
func without(env []string, prefixes ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(variable string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(variable, p) })
	})
}

// secretive is a deployment whose every secret is a canary. PostgreSQL takes its one;
// the other stores refuse what they are sent.
func secretive(t *testing.T) (*rig.Deployment, canaries) {
	t.Helper()
	c := canaries{}
	d := rig.Deploy(t, rig.OpenQueues(t), rig.Upstream{Relay: "ws://127.0.0.1:1", PLC: "http://127.0.0.1:1"})
	reader, err := url.Parse(storetest.Login(t, d.DatabaseURL))
	require.NoError(t, err)
	password, _ := reader.User.Password()
	c["DATABASE_URL"] = password
	admin, err := url.Parse(d.DatabaseURL)
	require.NoError(t, err)
	_, err = d.Database.Exec(t.Context(), "GRANT "+admin.User.Username()+" TO "+reader.User.Username()+"; ALTER ROLE "+reader.User.Username()+" SET role = "+admin.User.Username())
	require.NoError(t, err)
	redis, err := url.Parse(d.RedisURL)
	require.NoError(t, err)
	redis.User = url.UserPassword("", c.make("REDIS_URL"))
	refusing := "http://elastic:" + c.make("ELASTICSEARCH_URL") + "@" + refuse(t)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(c.make("LAYERS_ADMIN_TOKEN_FILE")+rand.Text()), 0o600))
	d.Env = append(without(d.Env, "DATABASE_URL=", "REDIS_URL=", "LOG_FORMAT="),
		"DATABASE_URL="+reader.String(), "DATABASE_REPLICA_URL="+reader.String(), "REDIS_URL="+redis.String(),
		"ELASTICSEARCH_URL="+refusing, "ELASTICSEARCH_API_KEY="+c.make("ELASTICSEARCH_API_KEY"),
		"NEO4J_URL=bolt://127.0.0.1:1", "NEO4J_USER=neo4j", "NEO4J_PASSWORD="+c.make("NEO4J_PASSWORD"),
		"LAYERS_ADMIN_TOKEN_FILE="+file, "LOG_LEVEL=debug", "LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true",
	)
	return d, c
}

// refuse is an Elasticsearch that takes nobody's word, and repeats it.
func refuse(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"type":"security_exception","reason":"unable to authenticate user [elastic] for REST request [`+r.URL.Path+`]"},"status":401}`)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// TestNothingTellsSecrets runs the program with canaries for secrets and looks for them
// in all that it says: logs at their most talkative, answers, metrics, profiles, errors.
func TestNothingTellsSecrets(t *testing.T) {
	t.Parallel()
	d, planted := secretive(t)
	for _, role := range []string{"api", "worker", "indexer"} {
		public, private := rig.FreeAddress(t), rig.FreeAddress(t)
		p := rig.Launch(t, append(slices.Clone(d.Env), "LAYERS_LISTEN="+public, "LAYERS_METRICS_LISTEN="+private), role, role)
		rig.Eventually(t, role+" to answer", func() (bool, string) {
			response, err := http.Get("http://" + public + "/health")
			if err != nil {
				return false, err.Error()
			}
			return response.StatusCode == http.StatusOK && response.Body.Close() == nil, response.Status
		}, p)
		for _, address := range []string{
			public + "/ready", public + "/", public + "/openapi.json", public + "/xrpc/_health", public + "/xrpc/pub.layers.corpus.listCorpora?repo=x",
			public + "/api/v1/search?q=word", public + "/api/v1/corpora", public + "/api/v1/references?target=at://did:web:a.example", public + "/api/v1/stats",
			public + "/api/v1/graph/nodes/at%3A%2F%2Fdid%3Aweb%3Aa.example%2Fpub.layers.corpus.corpus%2Fa/neighbors",
			private + "/metrics", private + "/debug/pprof/cmdline", private + "/debug/pprof/goroutine?debug=2", private + "/debug/pprof/",
			private + "/api/v1/admin/dlq", private + "/api/v1/admin/openapi.json",
		} {
			planted.absent(t, get(t, "http://"+address), role+" "+address)
		}
		rig.Eventually(t, role+" to say what does not answer", func() (bool, string) {
			return strings.Contains(p.Output(), "127.0.0.1:1") || strings.Contains(p.Output(), "WRONGPASS") || strings.Contains(p.Output(), "security_exception"), "nothing yet"
		}, p)
		planted.absent(t, p.Arguments(), "the arguments of "+role)
		p.Stop()
		planted.absent(t, p.Output(), "the log of "+role)
	}
}

// get is all of an answer.
func get(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return fmt.Sprint(response.Status, response.Header, string(body))
}

// TestErrorsTellNoSecrets runs commands with settings that are wrong in ways that have
// a library quote them.
func TestErrorsTellNoSecrets(t *testing.T) {
	t.Parallel()
	c := canaries{}
	server, err := url.Parse(os.Getenv("LAYERS_TEST_DATABASE_URL"))
	require.NoError(t, err)
	settings := []string{
		"DATABASE_URL=postgres://layers:" + c.make("a wrong password") + "@" + server.Host + "/layers",
		"DATABASE_URL=postgres://layers:" + c.make("a host that is away") + "@127.0.0.1:1/layers?connect_timeout=1",
		"DATABASE_URL=postgres://layers:" + c.make("a URL with a bad port") + "@127.0.0.1:port/layers",
		"DATABASE_URL=postgres://layers:" + c.make("a URL with bad escapes") + "%zz@127.0.0.1/layers",
		"DATABASE_URL=postgres://layers:" + c.make("a URL with bad options") + "@127.0.0.1/layers?sslmode=nonsense",
		"DATABASE_URL=" + c.make("a password in place of a URL"),
		"DATABASE_URL=host=127.0.0.1 password=" + c.make("words in place of a URL"),
		"REDIS_URL=redis://:" + c.make("a Redis with a bad database") + "@127.0.0.1:1/words",
		"REDIS_URL=redis://:" + c.make("a Redis with bad options") + "@127.0.0.1:1/0?dial_timeout=words",
		"REDIS_URL=redis://:" + c.make("a Redis without a host"),
		"REDIS_URL=rediss//:" + c.make("a Redis with a bad scheme") + "@host",
		"ELASTICSEARCH_URL=http://elastic:" + c.make("an Elasticsearch with bad escapes") + "%zz@127.0.0.1:1",
		"ELASTICSEARCH_URL=http://elastic:" + c.make("an Elasticsearch that is away") + "@127.0.0.1:1",
		"NEO4J_URL=bolt://neo4j:" + c.make("a Neo4j with a password in its URL") + "@127.0.0.1:1",
		"NEO4J_URL=bolt://neo4j:" + c.make("a Neo4j with a bad port") + "@127.0.0.1:port",
		"LAYERS_ADMIN_TOKEN=" + c.make("a token with spaces") + " and words",
		"DATABASE_URL_FILE=/nowhere/database-url",
	}
	login := storetest.Login(t, server.String()) // may connect, and nothing else
	u, err := url.Parse(login)
	require.NoError(t, err)
	c["the right password"], _ = u.User.Password()
	for _, set := range settings {
		for _, command := range []string{"api", "indexer"} {
			t.Run(command+" "+strings.SplitN(set, "=", 2)[0], func(t *testing.T) {
				t.Parallel()
				env := append(without(os.Environ(), "LAYERS_", "DATABASE_"), "LOG_LEVEL=debug", "LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0",
					"DATABASE_URL="+login, "REDIS_URL=redis://127.0.0.1:1", "LAYERS_DRAIN=1s", set)
				if strings.HasPrefix(set, "DATABASE_URL_FILE") {
					env = without(env, "DATABASE_URL=")
				}
				said := rig.Briefly(t, env, command)
				require.NotEmpty(t, said)
				c.absent(t, said, command)
			})
		}
	}
}

// TestHelpTellsNoSecrets asks for the usage of each command, which names the settings
// and their defaults, with all of them set.
func TestHelpTellsNoSecrets(t *testing.T) {
	t.Parallel()
	c := canaries{}
	env := without(os.Environ(), "LAYERS_", "DATABASE_")
	for _, name := range []string{"DATABASE_URL", "DATABASE_REPLICA_URL", "REDIS_URL", "ELASTICSEARCH_URL", "ELASTICSEARCH_API_KEY", "NEO4J_URL", "NEO4J_PASSWORD", "LAYERS_ADMIN_TOKEN"} {
		env = append(env, name+"=redis://user:"+c.make(name)+"@host")
	}
	for _, command := range []string{"api", "indexer", "worker", "migrate"} {
		said := rig.Briefly(t, env, command, "--help")
		require.Contains(t, said, "DATABASE_URL")
		c.absent(t, said, command+" --help")
		c.absent(t, rig.Briefly(t, env, command, "--no-such-flag"), command+" --no-such-flag")
	}
}
