package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// upstream is where a deployment finds the AT Protocol network.
type upstream struct {
	relay string // ws:// URL of what serves subscribeRepos
	plc   string // http:// URL of the PLC directory
}

// deployment is one installation of the program: its part of the stores, each
// behind a proxy, and the environment that tells the program of them.
type deployment struct {
	*stores
	t       *testing.T
	env     []string
	proxies struct{ postgres, redis, elasticsearch, neo4j *proxy }
	checked map[string]string // of values compared once: CID to the text that has it
}

// deploy makes a deployment on empty stores. Settings are further variables, as
// NAME=value.
func deploy(t *testing.T, on upstream, settings ...string) *deployment {
	t.Helper()
	d := &deployment{stores: openStores(t), t: t, checked: map[string]string{}}
	through := func(to **proxy, address string) string {
		u, err := url.Parse(address)
		require.NoError(t, err)
		*to = newProxy(t, u.Host)
		u.Host = (*to).addr()
		return u.String()
	}
	for _, variable := range os.Environ() {
		// The program must see its own settings alone.
		if !strings.HasPrefix(variable, "LAYERS_") && !strings.HasPrefix(variable, "DATABASE_") {
			d.env = append(d.env, variable)
		}
	}
	d.env = append(d.env,
		"DATABASE_URL="+through(&d.proxies.postgres, d.databaseURL),
		"REDIS_URL="+through(&d.proxies.redis, d.redisURL),
		"ELASTICSEARCH_URL="+through(&d.proxies.elasticsearch, d.elastic),
		"ELASTICSEARCH_PREFIX="+d.prefix,
		"NEO4J_URL="+through(&d.proxies.neo4j, d.neo4jURL),
		"NEO4J_USER="+d.neo4jUser,
		"NEO4J_PASSWORD="+d.neo4jSecret,
		"NEO4J_SPACE="+d.space,
		"LAYERS_RELAY_URL="+on.relay,
		"LAYERS_PLC_URL="+on.plc,
		"LAYERS_ALLOW_PRIVATE_HOSTS=true",
		"LAYERS_LISTEN=127.0.0.1:0",
		"LAYERS_METRICS_LISTEN=127.0.0.1:0",
		"LOG_FORMAT=text",
	)
	d.env = append(d.env, settings...)
	d.run("migrate")
	return d
}

// run runs a command to its end and requires that it succeeds.
func (d *deployment) run(args ...string) string {
	d.t.Helper()
	p := launch(d.t, d.env, args[0], args...)
	p.wait(patience)
	p.meant = true // what it says is shown here
	require.NoError(d.t, p.err, "layers %s:\n%s", strings.Join(args, " "), p.output())
	return p.output()
}

// indexer starts an indexer, which runs the workers too unless told otherwise.
func (d *deployment) indexer(args ...string) *process {
	return launch(d.t, d.env, "indexer", append([]string{"indexer"}, args...)...)
}

// worker starts a process of workers alone.
func (d *deployment) worker() *process { return launch(d.t, d.env, "worker", "worker") }

// api starts an API server and waits until it is ready.
func (d *deployment) api() *client {
	d.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(d.t, err)
	address := listener.Addr().String()
	require.NoError(d.t, listener.Close())
	p := launch(d.t, append(d.env, "LAYERS_LISTEN="+address, "LOG_LEVEL=warn"), "api", "api")
	c := newClient(d.t, "http://"+address)
	eventually(d.t, "the API to be ready", func() (bool, string) {
		response, err := http.Get(c.base + "/ready")
		if err != nil {
			return false, err.Error()
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, response.Status
	}, p)
	return c
}

// cursor is how far the index says it has come; 0 before it has begun.
func (d *deployment) cursor() int64 {
	d.t.Helper()
	var seq int64
	err := d.database.QueryRow(d.t.Context(), "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&seq)
	require.NoError(d.t, err)
	return seq
}

// reach waits until the index has come to an event.
func (d *deployment) reach(seq int64, alive ...*process) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("the cursor to reach %d", seq), func() (bool, string) {
		at := d.cursor()
		return at >= seq, fmt.Sprintf("it is at %d", at)
	}, alive...)
}

// pending counts what the projections have yet to catch up with.
func (d *deployment) pending() int64 {
	d.t.Helper()
	var rows int64
	err := d.database.QueryRow(d.t.Context(), "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sweeps)").Scan(&rows)
	require.NoError(d.t, err)
	return rows
}

// settle waits until the projections have caught up with PostgreSQL.
func (d *deployment) settle(alive ...*process) {
	d.t.Helper()
	eventually(d.t, "the projections to catch up", func() (bool, string) {
		rows := d.pending()
		return rows == 0, fmt.Sprintf("%d rows are pending", rows)
	}, alive...)
}

// rows calls scan for each row of a query's result.
func (d *deployment) rows(scan func(pgx.Rows) error, query string, args ...any) {
	d.t.Helper()
	rows, err := d.database.Query(d.t.Context(), query, args...)
	require.NoError(d.t, err)
	defer rows.Close()
	for rows.Next() {
		require.NoError(d.t, scan(rows))
	}
	require.NoError(d.t, rows.Err())
}
