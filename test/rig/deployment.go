package rig

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// Upstream is where a deployment finds the AT Protocol network.
type Upstream struct {
	Relay string // ws:// URL of what serves subscribeRepos
	PLC   string // http:// URL of the PLC directory
}

// Deployment is one installation of the program: its part of the stores, each
// behind a proxy, and the environment that tells the program of them.
type Deployment struct {
	*Stores
	T       *testing.T
	Env     []string
	Proxies struct{ Postgres, Redis, Elasticsearch, Neo4j *Proxy }

	reader   sync.Once
	readerIs *url.Userinfo // the login of API processes
}

// Deploy makes a deployment on empty stores. Settings are further variables, as
// NAME=value.
func Deploy(t *testing.T, stores *Stores, on Upstream, settings ...string) *Deployment {
	t.Helper()
	d := Prepare(t, stores, on, settings...)
	d.Run("migrate")
	return d
}

// Prepare makes a deployment that has yet to be migrated.
func Prepare(t *testing.T, stores *Stores, on Upstream, settings ...string) *Deployment {
	t.Helper()
	d := &Deployment{Stores: stores, T: t}
	for _, variable := range os.Environ() {
		// The program must see its own settings alone.
		if !strings.HasPrefix(variable, "LAYERS_") && !strings.HasPrefix(variable, "DATABASE_") {
			d.Env = append(d.Env, variable)
		}
	}
	d.through(&d.Proxies.Postgres, "DATABASE_URL", stores.DatabaseURL)
	d.through(&d.Proxies.Redis, "REDIS_URL", stores.RedisURL)
	d.through(&d.Proxies.Elasticsearch, "ELASTICSEARCH_URL", stores.Elastic)
	d.through(&d.Proxies.Neo4j, "NEO4J_URL", stores.Neo4jURL)
	d.Env = append(d.Env,
		"ELASTICSEARCH_PREFIX="+stores.Prefix,
		"NEO4J_USER="+stores.Neo4jUser,
		"NEO4J_PASSWORD="+stores.Neo4jSecret,
		"NEO4J_SPACE="+stores.Space,
		"LAYERS_RELAY_URL="+on.Relay,
		"LAYERS_PLC_URL="+on.PLC,
		"LAYERS_ALLOW_PRIVATE_HOSTS=true",
		"LAYERS_LISTEN=127.0.0.1:0",
		"LAYERS_METRICS_LISTEN=127.0.0.1:0",
		"LOG_FORMAT=text",
	)
	d.Env = append(d.Env, settings...)
	return d
}

// through puts a proxy in front of a store that the deployment has.
func (d *Deployment) through(to **Proxy, variable, address string) {
	d.T.Helper()
	if address == "" {
		return
	}
	p, url := Before(d.T, address)
	*to = p
	d.Env = append(d.Env, variable+"="+url)
}

// Run runs a command to its end and requires that it succeeds.
func (d *Deployment) Run(args ...string) string {
	d.T.Helper()
	code, output := d.Try(args...)
	require.Zero(d.T, code, "layers %s:\n%s", strings.Join(args, " "), output)
	return output
}

// RunFailing runs a command to its end and requires that it ends with a code.
func (d *Deployment) RunFailing(code int, args ...string) string {
	d.T.Helper()
	ended, output := d.Try(args...)
	require.Equal(d.T, code, ended, "layers %s:\n%s", strings.Join(args, " "), output)
	return output
}

// commandTime is how long a command may take: one that itself waits for as long as the
// Patience has more to do after that.
const commandTime = 3 * Patience

// Try runs a command to its end, and returns how that was and all that it has written.
func (d *Deployment) Try(args ...string) (code int, output string) {
	d.T.Helper()
	p := Launch(d.T, d.Env, args[0], args...)
	p.Wait(commandTime)
	p.meant = true // who asks shows what it said
	return p.cmd.ProcessState.ExitCode(), p.Output()
}

// Indexer starts an indexer, which runs the workers too unless told otherwise.
func (d *Deployment) Indexer(args ...string) *Process {
	return Launch(d.T, d.Env, "indexer", append([]string{"indexer"}, args...)...)
}

// Worker starts a process of workers alone.
func (d *Deployment) Worker() *Process { return Launch(d.T, d.Env, "worker", "worker") }

// API starts an API server, waits until it is ready and returns its address, as
// http://127.0.0.1:3000.
func (d *Deployment) API() string {
	d.T.Helper()
	base, _ := d.Replica(FreeAddress(d.T))
	return base
}

// Replica starts an API server at an address, with further settings, and waits until it
// is ready.
func (d *Deployment) Replica(address string, settings ...string) (base string, p *Process) {
	d.T.Helper()
	p = Launch(d.T, slices.Concat(d.Env, []string{"DATABASE_URL=" + d.readerURL(), "LAYERS_LISTEN=" + address, "LAYERS_RATE_LIMITS=off", "LOG_LEVEL=warn"}, settings), "api", "api")
	base = "http://" + address
	Eventually(d.T, "the API to be ready", func() (bool, string) { return ready(base) }, p)
	return base, p
}

// readerURL is how API processes reach PostgreSQL: by a login that is a member of the
// role that migrations make for them, and has no other right.
func (d *Deployment) readerURL() string {
	d.T.Helper()
	var address *url.URL
	for _, variable := range d.Env {
		if value, ok := strings.CutPrefix(variable, "DATABASE_URL="); ok {
			var err error
			address, err = url.Parse(value)
			require.NoError(d.T, err)
		}
	}
	d.reader.Do(func() {
		login, err := url.Parse(storetest.Login(d.T, d.DatabaseURL, store.ReaderRole))
		require.NoError(d.T, err)
		d.readerIs = login.User
	})
	address.User = d.readerIs
	return address.String()
}

// Cursor is how far the index says it has come; 0 before it has begun.
func (d *Deployment) Cursor() int64 {
	d.T.Helper()
	var seq int64
	err := d.Database.QueryRow(d.T.Context(), "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&seq)
	require.NoError(d.T, err)
	return seq
}

// Reach waits until the index has come to an event.
func (d *Deployment) Reach(seq int64, alive ...*Process) {
	d.T.Helper()
	Eventually(d.T, fmt.Sprintf("the cursor to reach %d", seq), func() (bool, string) {
		at := d.Cursor()
		return at >= seq, fmt.Sprintf("it is at %d", at)
	}, alive...)
}

// Settle waits until no repository is being fetched, or is to be fetched now, and the
// projections have caught up with PostgreSQL: the cursor passes the events of these
// repositories. It takes an indexer: fetches that a stopped one left go on with the next.
func (d *Deployment) Settle(alive ...*Process) {
	d.T.Helper()
	Eventually(d.T, "fetches to end and the projections to catch up", func() (bool, string) {
		var rows int64
		err := d.Database.QueryRow(d.T.Context(), `
			SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sweeps)
				+ (SELECT count(*) FROM repos WHERE sync = 'resyncing') + (SELECT count(*) FROM resyncs WHERE due_at <= now())`).Scan(&rows)
		require.NoError(d.T, err)
		return rows == 0, fmt.Sprintf("%d rows are pending", rows)
	}, alive...)
}

// Rows calls scan for each row of a query's result.
func (d *Deployment) Rows(scan func(pgx.Rows) error, query string, args ...any) {
	d.T.Helper()
	rows, err := d.Database.Query(d.T.Context(), query, args...)
	require.NoError(d.T, err)
	defer rows.Close()
	for rows.Next() {
		require.NoError(d.T, scan(rows))
	}
	require.NoError(d.T, rows.Err())
}
