package rebuild_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/indexer/task"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	author     = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	expression = syntax.NSID("pub.layers.expression.expression")
)

// world is the stores with records in them, and workers that keep them in step.
type world struct {
	t           *testing.T
	catalog     *catalog.Catalog
	db          *storetest.Database
	writer      *store.Writer
	routes      store.Routes
	mappings    []search.Mapping
	searchAt    search.Config
	graphAt     graph.Config
	stores      reconcile.Stores
	maker       *fixture.Maker
	rev         atomic.Int64
	stable      []record.Key // written once
	stopWorkers func()
}

func newWorld(t *testing.T, records int) *world {
	t.Helper()
	cat, err := catalog.Load()
	require.NoError(t, err)
	w := &world{t: t, catalog: cat, routes: store.Routes{}, maker: fixture.New(7)}
	for _, c := range cat.Collections() {
		w.routes[c.NSID] = project.Targets(c)
		if m, ok := project.Mapping(c); ok {
			w.mappings = append(w.mappings, m)
		}
	}
	w.db = storetest.New(t, layout.Partitions(cat)...)
	w.writer = w.db.Writer(t, w.routes)
	w.searchAt, w.graphAt = searchtest.Config(t), graphtest.Config(t)
	w.stores = w.open()
	require.NoError(t, w.stores.Graph.Ensure(t.Context()))
	for i := range records {
		c := cat.Collections()[i%len(cat.Collections())]
		key := w.put(c.NSID, syntax.RecordKey(fmt.Sprintf("stable%05d", i)))
		w.stable = append(w.stable, key)
		w.maker.Refer(key.URI())
	}
	w.work()
	w.caughtUp()
	require.NoError(t, w.stores.Search.Refresh(t.Context(), expression)) // readers ask at once
	return w
}

// open makes clients of their own, as another process has.
func (w *world) open() reconcile.Stores {
	w.t.Helper()
	s := reconcile.Stores{
		Catalog: w.catalog, Records: store.NewReader(w.db.Pool), Outbox: store.NewOutbox(w.db.Pool), Tables: store.NewTables(w.db.Pool),
		Search: searchtest.Open(w.t, w.searchAt), Graph: graphtest.Open(w.t, w.graphAt),
	}
	_, err := s.Search.Ensure(w.t.Context(), w.mappings)
	require.NoError(w.t, err)
	return s
}

// put writes a record of any content.
func (w *world) put(collection syntax.NSID, rkey syntax.RecordKey) record.Key {
	w.t.Helper()
	key := record.Key{DID: author, Collection: collection, Rkey: rkey}
	block, err := atdata.MarshalCBOR(w.maker.Record(collection))
	require.NoError(w.t, err)
	checked, err := w.catalog.Check(key, block)
	require.NoError(w.t, err)
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	require.NoError(w.t, err)
	w.apply(store.Change{
		Action: record.Update, Key: key, CID: syntax.CID(sum.String()),
		JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
	})
	return key
}

func (w *world) apply(change store.Change) {
	w.t.Helper()
	change.Rev = syntax.TID(fmt.Sprintf("3k%011d", w.rev.Add(1)))
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Changes: []store.Change{change}}))
}

// work runs a dispatcher and workers with clients of their own until the test ends.
func (w *world) work() {
	w.t.Helper()
	own := w.open()
	cfg := task.Config{
		RedisURL: "redis://" + miniredis.RunT(w.t).Addr(), Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		Targets: []record.Target{record.Tables, record.Search, record.Graph},
	}
	dispatcher, err := task.NewDispatcher(cfg, own.Outbox)
	require.NoError(w.t, err)
	workers, err := task.NewWorkers(cfg, task.Stores{
		Catalog: own.Catalog, Records: own.Records, Outbox: own.Outbox, DeadLetters: store.NewDeadLetters(w.db.Pool),
		Tables: own.Tables, Search: own.Search, Graph: own.Graph,
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- dispatcher.Run(ctx) }()
	go func() { ended <- workers.Run(ctx) }()
	w.stopWorkers = sync.OnceFunc(func() {
		cancel()
		require.NoError(w.t, <-ended)
		require.NoError(w.t, <-ended)
	})
	w.t.Cleanup(w.stopWorkers)
}

func (w *world) caughtUp() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	for _, target := range []record.Target{record.Tables, record.Search, record.Graph} {
		require.NoError(w.t, reconcile.CaughtUp(ctx, w.stores.Outbox, target))
	}
}

func (w *world) next(target record.Target) rebuild.Projection {
	own := w.open()
	if target == record.Search {
		return rebuild.NewSearch(w.catalog, own.Search)
	}
	return rebuild.NewGraph(w.catalog, own.Graph)
}

func (w *world) config(target record.Target, report func(rebuild.Progress)) rebuild.Config {
	cfg := rebuild.Config{
		Catalog: w.catalog, Records: store.NewReader(w.db.Pool), Outbox: store.NewOutbox(w.db.Pool), Rebuilds: store.NewRebuilds(w.db.Pool),
		Letters: store.NewDeadLetters(w.db.Pool), Next: w.next(target), Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Report: report,
	}
	for collection, targets := range w.routes {
		if slices.Contains(targets, target) {
			cfg.Collections = append(cfg.Collections, collection)
		}
	}
	slices.Sort(cfg.Collections)
	return cfg
}

// live changes records without pause until it is told to stop.
func (w *world) live() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	changes := 0
	running.Go(func() {
		collections := w.catalog.Collections()
		dice := rand.New(rand.NewPCG(3, 3))
		for ctx.Err() == nil {
			key := record.Key{DID: author, Collection: collections[dice.IntN(len(collections))].NSID, Rkey: syntax.RecordKey(fmt.Sprint("live", dice.IntN(40)))}
			if dice.IntN(3) == 0 {
				w.apply(store.Change{Action: record.Delete, Key: key})
			} else {
				w.put(key.Collection, key.Rkey)
			}
			changes++
			time.Sleep(25 * time.Millisecond) // a loaded machine must be able to follow
		}
	})
	return func() {
		cancel()
		running.Wait()
		require.Greater(w.t, changes, 20, "changes meanwhile")
	}
}

// readers ask for what does not change, all the time, and want all of it each time.
func (w *world) readers() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	own := w.open()
	var running sync.WaitGroup
	var reads [2]int
	var gaps []string
	var expressions []string
	for _, key := range w.stable {
		if key.Collection == expression {
			expressions = append(expressions, key.String())
		}
	}
	alias := own.Search.Alias(expression)
	running.Go(func() {
		for ctx.Err() == nil {
			url := w.searchAt.URLs[0] + "/" + alias + "/_count"
			n, err := count(ctx, url, expressions)
			if ctx.Err() == nil && (err != nil || n != len(expressions)) {
				gaps = append(gaps, fmt.Sprintf("search: %d of %d, %v", n, len(expressions), err))
			}
			reads[0]++
		}
	})
	var missing []string
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			key := w.stable[i%len(w.stable)]
			got, err := own.Graph.Get(ctx, key)
			if ctx.Err() == nil && (err != nil || got.Dangling) {
				missing = append(missing, fmt.Sprintf("graph: %s: dangling %t, %v", key, got.Dangling, err))
			}
			reads[1]++
		}
	})
	return func() {
		cancel()
		running.Wait()
		require.Empty(w.t, append(gaps, missing...))
		require.Greater(w.t, min(reads[0], reads[1]), 10)
	}
}

// count is how many of the documents a query finds.
func count(ctx context.Context, url string, uris []string) (int, error) {
	body, _ := json.Marshal(map[string]any{"query": map[string]any{"terms": map[string]any{"uri": uris}}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var answer struct{ Count int }
	if res.StatusCode != http.StatusOK {
		return 0, errors.New(res.Status)
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	return answer.Count, err
}

// TestNothingIsLostAndReadsSeeNoGap rebuilds while records change, with readers that
// want the same answers before, during and after, and with a stop at every step.
func TestNothingIsLostAndReadsSeeNoGap(t *testing.T) {
	t.Parallel()
	for _, target := range []record.Target{record.Search, record.Graph} {
		t.Run(string(target), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 200)
			stopReaders, stopLive := w.readers(), w.live()
			for _, step := range []string{"begin", "fill", "follow", "promote", "end"} {
				w.interrupt(target, step)
			}
			done, err := rebuild.Run(t.Context(), w.config(target, nil))
			require.NoError(t, err)
			require.Equal(t, "done", done.Step)
			stopLive()
			w.caughtUp()
			stopReaders()
			w.clean(target)
			_, err = store.NewRebuilds(w.db.Pool).Get(t.Context(), target)
			require.ErrorIs(t, err, store.ErrNotFound)
		})
	}
}

// interrupt runs the rebuild until it reports from a step, and stops it there. A run
// that does not come by the step, since an earlier one has done it, ends.
func (w *world) interrupt(target record.Target, step string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	cfg := w.config(target, func(p rebuild.Progress) {
		if p.Step == step {
			cancel()
		}
	})
	cfg.Next = stopping{cfg.Next, step, cancel}
	_, err := rebuild.Run(ctx, cfg)
	require.ErrorIs(w.t, err, context.Canceled, "stopped at %s", step)
}

// stopping ends a run at the steps that report nothing by themselves.
type stopping struct {
	rebuild.Projection
	step   string
	cancel func()
}

func (s stopping) Promote(ctx context.Context) error {
	if s.step == "promote" {
		s.cancel()
	}
	return s.Projection.Promote(ctx)
}

func (s stopping) Write(ctx context.Context, items []rebuild.Item) ([]rebuild.Failure, error) {
	if s.step == "follow" {
		s.cancel()
		return nil, context.Canceled
	}
	return s.Projection.Write(ctx, items)
}

func (s stopping) Discard(ctx context.Context) error {
	if s.step == "end" {
		s.cancel()
		return context.Canceled
	}
	return s.Projection.Discard(ctx)
}

// clean requires that the projection equals PostgreSQL, and that nothing else is there.
func (w *world) clean(target record.Target) {
	w.t.Helper()
	stores := w.open()
	report, err := reconcile.Run(w.t.Context(), stores, reconcile.Options{Targets: []record.Target{target}, Wait: time.Minute})
	require.NoError(w.t, err)
	require.True(w.t, report.Clean(), "%v", report.Differences)
	require.GreaterOrEqual(w.t, report.Compared[target], int64(len(w.stable)/3))
	if target == record.Search {
		res, err := http.Get(w.searchAt.URLs[0] + "/" + w.searchAt.Prefix + "-*?filter_path=*.settings.index.refresh_interval,*.settings.index.provided_name")
		require.NoError(w.t, err)
		defer res.Body.Close()
		var indexes map[string]any
		require.NoError(w.t, json.NewDecoder(res.Body).Decode(&indexes))
		require.Len(w.t, indexes, len(w.mappings))
		for name, settings := range indexes {
			require.NotContains(w.t, fmt.Sprint(settings), "refresh_interval", name)
		}
	}
}

// TestAnAbortLeavesNothing.
func TestAnAbortLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 60)
	for _, target := range []record.Target{record.Search, record.Graph} {
		w.interrupt(target, "fill")
		w.put(expression, "meanwhile-"+syntax.RecordKey(target))
		depth, err := w.stores.Outbox.Depth(t.Context(), store.Twin(target))
		require.NoError(t, err)
		require.False(t, depth.Empty(), "the change has a twin")
		require.NoError(t, rebuild.Abort(t.Context(), store.NewRebuilds(w.db.Pool), w.next(target)))
		depth, err = w.stores.Outbox.Depth(t.Context(), store.Twin(target))
		require.NoError(t, err)
		require.True(t, depth.Empty())
		w.caughtUp()
		w.clean(target)
	}
}
