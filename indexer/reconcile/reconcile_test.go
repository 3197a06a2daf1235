package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
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

// world is three stores that hold the same records, and workers to repair them.
type world struct {
	t      *testing.T
	stores Stores
	db     *storetest.Database
	writer *store.Writer
	redis  string
	keys   []record.Key
	stop   func() // the workers
}

const (
	layerType      = syntax.NSID("pub.layers.annotation.annotationLayer")
	expressionType = syntax.NSID("pub.layers.expression.expression")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	cat, err := catalog.Load()
	require.NoError(t, err)
	var mappings []search.Mapping
	routes := store.Routes{}
	for _, c := range cat.Collections() {
		routes[c.NSID] = project.Targets(c)
		if m, ok := project.Mapping(c); ok {
			mappings = append(mappings, m)
		}
	}
	w := &world{t: t, db: storetest.New(t, layout.Partitions(cat)...), redis: "redis://" + miniredis.RunT(t).Addr()}
	w.writer = w.db.Writer(t, routes)
	w.stores = Stores{
		Catalog: cat, Records: store.NewReader(w.db.Pool), Outbox: store.NewOutbox(w.db.Pool), Tables: store.NewTables(w.db.Pool),
		Search: searchtest.New(t), Graph: graphtest.New(t),
	}
	_, err = w.stores.Search.Ensure(t.Context(), mappings)
	require.NoError(t, err)
	w.fill(cat)
	w.start()
	w.caughtUp()
	return w
}

// fill writes four records of every type.
func (w *world) fill(cat *catalog.Catalog) {
	w.t.Helper()
	maker := fixture.New(11)
	var changes []store.Change
	for i := range 4 {
		for _, c := range cat.Collections() {
			key := record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: c.NSID, Rkey: syntax.RecordKey(fmt.Sprint("r", i))}
			block, err := atdata.MarshalCBOR(maker.Record(c.NSID))
			require.NoError(w.t, err)
			checked, err := cat.Check(key, block)
			require.NoError(w.t, err)
			sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
			require.NoError(w.t, err)
			changes = append(changes, store.Change{
				Action: record.Create, Key: key, Rev: syntax.NewTIDNow(0), CID: syntax.CID(sum.String()),
				JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
			})
			w.keys = append(w.keys, key)
			maker.Refer(key.URI())
		}
	}
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Changes: changes}))
}

// start runs a dispatcher and workers until stop is called or the test ends.
func (w *world) start() {
	w.t.Helper()
	cfg := task.Config{RedisURL: w.redis, Targets: w.stores.Targets(), Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil))}
	dispatcher, err := task.NewDispatcher(cfg, w.stores.Outbox)
	require.NoError(w.t, err)
	workers, err := task.NewWorkers(cfg, task.Stores{
		Catalog: w.stores.Catalog, Records: w.stores.Records, Outbox: w.stores.Outbox, DeadLetters: store.NewDeadLetters(w.db.Pool),
		Tables: w.stores.Tables, Search: w.stores.Search, Graph: w.stores.Graph,
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- dispatcher.Run(ctx) }()
	go func() { ended <- workers.Run(ctx) }()
	stopped := false
	w.stop = func() {
		cancel()
		if !stopped {
			require.NoError(w.t, <-ended)
			require.NoError(w.t, <-ended)
		}
		stopped = true
	}
	w.t.Cleanup(w.stop)
}

func (w *world) caughtUp() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	for _, target := range w.stores.Targets() {
		require.NoError(w.t, CaughtUp(ctx, w.stores.Outbox, target))
	}
}

func (w *world) run(opts Options) Report {
	w.t.Helper()
	report, err := Run(w.t.Context(), w.stores, opts)
	require.NoError(w.t, err)
	return report
}

func (w *world) of(collection syntax.NSID) (keys []record.Key) {
	for _, key := range w.keys {
		if key.Collection == collection {
			keys = append(keys, key)
		}
	}
	return keys
}

func (w *world) execute(statement string, args ...any) {
	w.t.Helper()
	tag, err := w.db.Pool.Exec(w.t.Context(), statement, args...)
	require.NoError(w.t, err)
	require.NotZero(w.t, tag.RowsAffected(), statement)
}

// seen are the differences without their versions.
func seen(report Report) map[record.Target]map[record.Key]Kind {
	out := map[record.Target]map[record.Key]Kind{}
	for _, d := range report.Differences {
		if out[d.Target] == nil {
			out[d.Target] = map[record.Key]Kind{}
		}
		out[d.Target][d.Key] = d.Kind
	}
	return out
}

// TestDifferencesAreFoundAndRepaired makes each kind of difference in each
// projection, sees that it is found, in memory for a few records too, and repairs.
func TestDifferencesAreFoundAndRepaired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	report := w.run(Options{Deep: true})
	require.True(t, report.Clean(), "%v", report.Differences)
	require.EqualValues(t, len(w.keys), report.Compared[record.Graph])
	require.EqualValues(t, len(w.keys), report.Examined)
	require.EqualValues(t, 4, report.Compared[record.Tables])

	const later = 1 << 40 // a version beyond all that the store will draw
	layers, expressions := w.of(layerType), w.of(expressionType)
	stranger := record.Key{DID: "did:plc:stranger", Collection: layerType, Rkey: "x"}
	w.stop()

	require.NoError(t, w.stores.Search.Write(ctx, []search.Document{
		{Key: stranger, Version: 1, IndexedAt: time.Now(), Body: []byte(`{}`)},
		{Key: expressions[0], Version: later},
	}))
	require.NoError(t, w.stores.Graph.Write(ctx, []graph.Subgraph{
		{Key: stranger, Version: 1}, {Key: expressions[1], Version: later, Deleted: true},
	}))
	require.NoError(t, w.stores.Tables.ReplaceAnnotations(ctx, []store.Layer{
		{Key: stranger, Version: 1}, {Key: layers[0], Version: later, Deleted: true},
	}))
	w.execute(`UPDATE annotation_layers SET version = 0 WHERE rkey = $1`, layers[1].Rkey)
	w.execute(`UPDATE records SET version = version + 1000000 WHERE collection = $1 AND rkey = $2`, expressionType, expressions[2].Rkey)

	want := map[record.Target]map[record.Key]Kind{
		record.Search: {stranger: Extra, expressions[0]: Missing, expressions[2]: Stale},
		record.Graph:  {stranger: Extra, expressions[1]: Missing, expressions[2]: Stale},
		record.Tables: {stranger: Extra, layers[0]: Missing, layers[1]: Stale},
	}
	for _, held := range []int{0, 1, 5} {
		report = w.run(Options{Held: held})
		require.Equal(t, want, seen(report), "holding %d records", held)
		require.EqualValues(t, 9, report.Real())
		require.EqualValues(t, len(w.keys), report.Compared[record.Graph])
	}
	narrow := w.run(Options{Targets: []record.Target{record.Graph}, Collections: []syntax.NSID{layerType}})
	require.Equal(t, map[record.Target]map[record.Key]Kind{record.Graph: {stranger: Extra}}, seen(narrow))

	// What was removed under a version that is yet to come stays removed: forget it,
	// as nothing in earnest would have written it.
	require.NoError(t, w.stores.Graph.Wipe(ctx))
	w.execute(`DELETE FROM annotation_layers WHERE version >= $1`, int64(later))
	w.execute(`UPDATE clock SET version = $1`, int64(later)+1)
	report = w.run(Options{Repair: true})
	require.EqualValues(t, len(report.Differences), report.Enqueued)
	require.Zero(t, w.run(Options{}).Real(), "all are in flight")
	w.start()
	report = w.run(Options{Wait: time.Minute, Deep: true})
	require.True(t, report.Clean(), "%v", report.Differences)
}

// TestExaminingFindsDamage alters PostgreSQL behind the store's back.
func TestExaminingFindsDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	layers, expressions := w.of(layerType), w.of(expressionType)
	w.execute(`UPDATE records SET value = '{"$type":"pub.layers.expression.expression","id":"x","kind":"word","createdAt":"2026-01-01T00:00:00Z"}'
		WHERE collection = $1 AND rkey = $2`, expressionType, expressions[0].Rkey)
	w.execute(`DELETE FROM refs WHERE collection = $1 AND rkey = $2 AND path = 'expression'`, layerType, layers[0].Rkey)
	w.execute(`DELETE FROM annotations WHERE rkey = $1 AND ordinal = 0`, layers[1].Rkey)
	w.execute(`UPDATE annotations SET label = 'other' WHERE rkey = $1 AND ordinal = 0`, layers[2].Rkey)

	require.True(t, w.run(Options{}).Clean(), "none of it is seen without reading values")
	report := w.run(Options{Deep: true, Repair: true})
	require.Equal(t, map[record.Target]map[record.Key]Kind{
		"":            {expressions[0]: Damaged, layers[0]: References},
		record.Tables: {layers[1]: Annotations, layers[2]: Annotations},
	}, seen(report))
	require.EqualValues(t, 2, report.Enqueued)
	w.caughtUp()
	require.Equal(t, map[record.Target]map[record.Key]Kind{"": {expressions[0]: Damaged, layers[0]: References}}, seen(w.run(Options{Deep: true})))
}

// TestReindexFillsANewIndex changes a mapping, so that another index is needed.
func TestReindexFillsANewIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	c, _ := w.stores.Catalog.Collection(expressionType)
	mapping, _ := project.Mapping(c)
	mapping.Properties["$more"] = map[string]any{"type": "keyword"}
	rebuild, err := w.stores.Search.Ensure(ctx, []search.Mapping{mapping})
	require.NoError(t, err)
	require.Equal(t, []syntax.NSID{expressionType}, rebuild)
	require.Len(t, w.run(Options{}).Differences, 4, "the new index is empty")

	waiting, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	require.NoError(t, Reindex(waiting, w.stores, record.Search, rebuild))
	require.True(t, w.run(Options{}).Clean())
	rebuild, err = w.stores.Search.Ensure(ctx, []search.Mapping{mapping})
	require.NoError(t, err)
	require.Empty(t, rebuild)
}
