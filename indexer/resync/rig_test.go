package resync

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	patient = 60 * time.Second // a condition that has not come by then will not
	tick    = 10 * time.Millisecond
)

// rig is a simulated network, a database, and what fetches from one to the other.
type rig struct {
	t      *testing.T
	world  *simulate.World
	server *simulate.Server
	db     *storetest.Database
	writer *store.Writer
	queue  *store.Resyncs
	moved  map[syntax.DID]string // where accounts have their repositories, other than at server
	line   *testLine
	cfg    Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	world, server := network(t)
	r := &rig{t: t, world: world, server: server, db: storetest.New(t), moved: map[syntax.DID]string{}}
	r.writer, r.queue = r.db.Writer(t, nil), store.NewResyncs(r.db.Pool)
	r.line = &testLine{writer: r.writer, begun: map[syntax.DID]bool{}}
	c, err := catalog.Load()
	require.NoError(t, err)
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	identities := hosts{directory.New(directory.Config{PLCURL: server.URL(), AllowPrivate: true}), r.moved, &r.line.mu}
	transport := directory.Transport(true)
	t.Cleanup(transport.CloseIdleConnections)
	r.cfg = Config{
		Queue: r.queue, Contents: r.writer, Catalog: c, Verifier: verify.New(identities), Identities: identities, Follow: c.Followed(),
		Network: transport, Operator: transport, Logger: logger, Dir: t.TempDir(),
		PollEvery: 20 * time.Millisecond, FirstWait: 50 * time.Millisecond, HostRate: 1000,
	}
	return r
}

// in is the same rig for a part of a test.
func (r *rig) in(t *testing.T) *rig {
	part := *r
	part.t = t
	return &part
}

// hosts says where accounts have moved to.
type hosts struct {
	*directory.Directory
	moved map[syntax.DID]string
	mu    *sync.Mutex
}

func (h hosts) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	account, err := h.Directory.LookupDID(ctx, did)
	h.mu.Lock()
	to, ok := h.moved[did]
	h.mu.Unlock()
	if err != nil || !ok {
		return account, err
	}
	other := *account
	other.Services = maps.Clone(account.Services)
	other.Services["atproto_pds"] = identity.ServiceEndpoint{Type: "AtprotoPersonalDataServer", URL: to}
	return &other, nil
}

// testLine writes straight to the store; it has no stream to hold back.
type testLine struct {
	writer *store.Writer

	mu      sync.Mutex
	begun   map[syntax.DID]bool
	twice   []syntax.DID // that were begun while they were under way
	reasons []string     // of abandoned fetches
}

func (l *testLine) state(ctx context.Context, u store.RepoUpdate) error {
	return l.writer.Apply(ctx, store.Batch{Repos: []store.RepoUpdate{u}})
}

func (l *testLine) Begin(ctx context.Context, did syntax.DID) (store.Repo, error) {
	l.mu.Lock()
	if l.begun[did] {
		l.twice = append(l.twice, did)
	}
	l.begun[did] = true
	l.mu.Unlock()
	found, err := l.writer.LoadRepos(ctx, []syntax.DID{did})
	if err != nil {
		return store.Repo{}, err
	}
	row, ok := found[did]
	if !ok {
		row = store.Repo{DID: did}
	}
	state := store.Resyncing
	return row, l.state(ctx, store.RepoUpdate{DID: did, Sync: &state})
}

func (l *testLine) end(did syntax.DID) {
	l.mu.Lock()
	delete(l.begun, did)
	l.mu.Unlock()
}

func (l *testLine) Status(ctx context.Context, did syntax.DID, status string, asked time.Time) (bool, error) {
	active := status == statusActive
	return true, l.state(ctx, store.RepoUpdate{DID: did, Active: &active, Status: &status, Time: asked})
}

func (l *testLine) Write(ctx context.Context, changes []store.Change, letters []store.DeadLetter) error {
	return l.writer.Apply(ctx, store.Batch{Changes: changes, DeadLetters: letters})
}

func (l *testLine) Finish(ctx context.Context, did syntax.DID, to Fetched) error {
	defer l.end(did)
	state, whole := store.Synchronized, true
	return l.state(ctx, store.RepoUpdate{
		DID: did, Sync: &state, Complete: &whole, Rev: &to.Rev, CommitCID: &to.CommitCID, Data: &to.Data, PDS: &to.PDS, Resync: true,
	})
}

func (l *testLine) Abandon(ctx context.Context, did syntax.DID, reason string) error {
	defer l.end(did)
	l.mu.Lock()
	l.reasons = append(l.reasons, reason)
	l.mu.Unlock()
	state := store.Desynchronized
	return l.state(ctx, store.RepoUpdate{DID: did, Sync: &state, Reason: &reason})
}

func (l *testLine) Purge(ctx context.Context, did syntax.DID) error {
	defer l.end(did)
	return l.writer.Apply(ctx, store.Batch{Purge: []syntax.DID{did}})
}

// start runs the scheduler until the test, or the returned function, ends it.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(r.cfg).Run(ctx, r.line) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(r.t, <-ended, context.Canceled)
	})
	r.t.Cleanup(stop)
	return stop
}

// want asks for repositories.
func (r *rig) want(dids ...syntax.DID) {
	r.t.Helper()
	var list []store.Wanted
	for _, did := range dids {
		list = append(list, store.Wanted{DID: did, Reason: "a test wants it"})
	}
	_, err := r.queue.Add(r.t.Context(), list)
	require.NoError(r.t, err)
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	require.Eventually(r.t, is, patient, tick, what)
}

// row is what is known of a repository.
func (r *rig) row(did syntax.DID) store.Repo {
	found, err := r.writer.LoadRepos(r.t.Context(), []syntax.DID{did})
	require.NoError(r.t, err)
	return found[did]
}

func (r *rig) synchronized(dids ...syntax.DID) {
	r.t.Helper()
	r.eventually("the repositories are not fetched", func() bool {
		for _, did := range dids {
			if row := r.row(did); row.Sync != store.Synchronized || !row.Complete {
				return false
			}
		}
		return true
	})
	for _, did := range dids {
		require.Equal(r.t, r.truth(did), r.indexed(did))
	}
}

// truth is what the network says the index must have of a repository.
func (r *rig) truth(did syntax.DID) map[record.Key]syntax.CID {
	out := map[record.Key]syntax.CID{}
	for e := range r.world.Records(simulate.View{}) {
		if e.Key.DID == did && e.Key.Collection != posts {
			out[e.Key] = e.CID
		}
	}
	return out
}

func (r *rig) indexed(did syntax.DID) map[record.Key]syntax.CID {
	r.t.Helper()
	rows, err := r.db.Pool.Query(r.t.Context(), "SELECT did, collection, rkey, cid FROM records WHERE did = $1", did)
	require.NoError(r.t, err)
	defer rows.Close()
	out := map[record.Key]syntax.CID{}
	for rows.Next() {
		var key record.Key
		var c syntax.CID
		require.NoError(r.t, rows.Scan(&key.DID, &key.Collection, &key.Rkey, &c))
		out[key] = c
	}
	require.NoError(r.t, rows.Err())
	return out
}

// pending is how a repository stands in the queue.
type pending struct {
	attempts int
	due      time.Time
	host     string
	cause    string
}

func (r *rig) pending(did syntax.DID) (p pending, ok bool) {
	r.t.Helper()
	rows, err := r.db.Pool.Query(r.t.Context(), "SELECT attempts, due_at, host, error FROM resyncs WHERE did = $1", did)
	require.NoError(r.t, err)
	defer rows.Close()
	for rows.Next() {
		ok = true
		require.NoError(r.t, rows.Scan(&p.attempts, &p.due, &p.host, &p.cause))
	}
	require.NoError(r.t, rows.Err())
	return p, ok
}

// faulty is a host in front of the network that does something else first.
type faulty struct {
	*httptest.Server
	pass http.Handler

	mu     sync.Mutex
	script []http.HandlerFunc // for the next requests for repositories; then they pass
	always http.HandlerFunc   // after the script; nil to let pass
	asked  map[syntax.DID]int
	did    int // what of the script was done
}

func (r *rig) host(script ...http.HandlerFunc) *faulty {
	r.t.Helper()
	to, err := url.Parse(r.server.URL())
	require.NoError(r.t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	f := &faulty{script: script, asked: map[syntax.DID]int{}, pass: proxy}
	f.Server = httptest.NewServer(f)
	r.t.Cleanup(f.Close)
	return f
}

// ServeHTTP implements [http.Handler].
func (f *faulty) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	if in.URL.Path != "/xrpc/com.atproto.sync.getRepo" {
		f.pass.ServeHTTP(out, in)
		return
	}
	f.mu.Lock()
	f.asked[syntax.DID(in.URL.Query().Get("did"))]++
	next := f.always
	if len(f.script) > 0 {
		next, f.script = f.script[0], f.script[1:]
		f.did++
	}
	f.mu.Unlock()
	if next == nil {
		next = f.pass.ServeHTTP
	}
	next(out, in)
}

func (f *faulty) requests() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, asked := range f.asked {
		n += asked
	}
	return n
}

// happened tells how much of the script was done.
func (f *faulty) happened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.did
}
