package backfill_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/backfill"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	corpus       = syntax.NSID("pub.layers.corpus.corpus")
	ontology     = syntax.NSID("pub.layers.ontology.ontology")
	note         = syntax.NSID("org.example.note")
	byCollection = "com.atproto.sync.listReposByCollection"
	all          = "com.atproto.sync.listRepos"
	patient      = 60 * time.Second // a condition that has not come by then will not
	tick         = 10 * time.Millisecond
)

// host stands before the simulated network, keeps what it is asked, and answers in
// its place where a test says so.
type host struct {
	*httptest.Server
	spoil func(w http.ResponseWriter, r *http.Request, nth int) bool // true if it has answered; nil for never

	mu    sync.Mutex
	asked []request
}

type request struct{ method, collection, cursor string }

func newHost(t *testing.T, network string, spoil func(http.ResponseWriter, *http.Request, int) bool) *host {
	t.Helper()
	target, err := url.Parse(network)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	h := &host{spoil: spoil}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		h.mu.Lock()
		nth := len(h.asked)
		h.asked = append(h.asked, request{strings.TrimPrefix(r.URL.Path, "/xrpc/"), q.Get("collection"), q.Get("cursor")})
		h.mu.Unlock()
		if h.spoil == nil || !h.spoil(w, r, nth) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) requests() []request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

// count is how often a method was asked for.
func (h *host) count(method string) (n int) {
	for _, r := range h.requests() {
		if r.method == method {
			n++
		}
	}
	return n
}

// rig is a network of accounts that existed before anybody listened, and a database.
type rig struct {
	t       *testing.T
	world   *simulate.World
	network string
	db      *storetest.Database
	resyncs *store.Resyncs
	writer  *store.Writer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	world, err := simulate.NewWorld(simulate.Config{})
	require.NoError(t, err)
	server := simulate.NewServer(world, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() {
		_ = server.Stop()
		_ = world.Close()
	})
	r := &rig{t: t, world: world, network: server.URL(), db: storetest.New(t)}
	r.resyncs = store.NewResyncs(r.db.Pool)
	r.writer = r.db.Writer(t, nil)
	return r
}

// accounts makes n of them, each with a record of the collection.
func (r *rig) accounts(name string, n int, collection syntax.NSID) []syntax.DID {
	r.t.Helper()
	var dids []syntax.DID
	for i := range n {
		did, err := r.world.CreateAccount(fmt.Sprintf("%s%d", name, i))
		require.NoError(r.t, err)
		r.write(did, collection)
		dids = append(dids, did)
	}
	slices.Sort(dids)
	return dids
}

func (r *rig) write(did syntax.DID, collection syntax.NSID) {
	r.t.Helper()
	_, err := r.world.Commit(did, simulate.Create(collection, "a", map[string]any{"$type": string(collection), "name": "x"}))
	require.NoError(r.t, err)
}

// start runs a backfill until the function that it returns is called.
func (r *rig) start(cfg backfill.Config) (stop func()) {
	r.t.Helper()
	cfg.Resyncs = r.resyncs
	cfg.Logger = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	cfg.Pause, cfg.Look, cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, tick, time.Millisecond, 5*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- backfill.New(cfg).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(r.t, <-done, context.Canceled)
	})
	r.t.Cleanup(stop)
	return stop
}

// finished waits until all searches are, and returns them.
func (r *rig) finished(n int) (list []store.Discovery) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		var err error
		list, err = r.resyncs.Discoveries(r.t.Context())
		return err == nil && len(list) == n && !slices.ContainsFunc(list, func(d store.Discovery) bool { return d.FinishedAt.IsZero() })
	}, patient, tick, "the searches were not finished")
	return list
}

func (r *rig) search(collection syntax.NSID) store.Discovery {
	r.t.Helper()
	list, err := r.resyncs.Discoveries(r.t.Context())
	require.NoError(r.t, err)
	at := slices.IndexFunc(list, func(d store.Discovery) bool { return d.Collection == collection })
	require.GreaterOrEqual(r.t, at, 0, "there is no search for %s", collection)
	return list[at]
}

// wanted is what waits to be fetched.
func (r *rig) wanted(candidates bool) []syntax.DID {
	r.t.Helper()
	rows, err := r.db.Pool.Query(r.t.Context(), "SELECT did FROM resyncs WHERE candidate = $1 ORDER BY did", candidates)
	require.NoError(r.t, err)
	dids, err := pgx.CollectRows(rows, pgx.RowTo[syntax.DID])
	require.NoError(r.t, err)
	return dids
}

// fetched plays the part of the one who fetches: all that waits becomes whole.
func (r *rig) fetched() {
	r.t.Helper()
	var updates []store.RepoUpdate
	for _, did := range slices.Concat(r.wanted(false), r.wanted(true)) {
		sync, whole, rev := store.Synchronized, true, syntax.TID("3kaaaaaaaaa2a")
		updates = append(updates, store.RepoUpdate{DID: did, Sync: &sync, Complete: &whole, Rev: &rev, Resync: true})
	}
	require.NoError(r.t, r.writer.Apply(r.t.Context(), store.Batch{Repos: updates}))
	require.Empty(r.t, r.wanted(false))
	require.Empty(r.t, r.wanted(true))
}
