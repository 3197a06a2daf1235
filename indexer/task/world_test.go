package task

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
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
	"github.com/layers-pub/layers-appview/test/rig"
)

const someone = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")

// world is the four real stores, empty, with a writer of records.
type world struct {
	t            testing.TB
	cat          *catalog.Catalog
	databaseURL  string
	writer       *store.Writer
	stores       Stores // as those under test reach them
	direct       Stores // as the test looks at them
	redis        *redis.Client
	redisURL     string
	searchConfig search.Config
	graphConfig  graph.Config
	proxies      map[record.Target]*rig.Proxy

	maker *fixture.Maker
	clock int // of revs
	keys  []record.Key
}

// newWorld sets up the stores. Those of the targets through are reached by a proxy.
func newWorld(t testing.TB, through ...record.Target) *world {
	t.Helper()
	w := &world{t: t, cat: loadCatalog(t), maker: fixture.New(rand.Uint64()), proxies: map[record.Target]*rig.Proxy{}}
	w.openRedis()

	routes := store.Routes{}
	for _, c := range w.cat.Collections() {
		routes[c.NSID] = project.Targets(c)
	}
	db := storetest.New(t, layout.Partitions(w.cat)...)
	w.databaseURL = db.URL
	w.writer = db.Writer(t, routes)
	w.searchConfig, w.graphConfig = searchtest.Config(t), graphtest.Config(t)
	w.direct = w.open(db, w.searchConfig, w.graphConfig)
	require.NoError(t, w.direct.Graph.Ensure(t.Context()))

	searchVia, graphVia := w.searchConfig, w.graphConfig
	for _, target := range through {
		var url string
		switch target {
		case record.Search:
			w.proxies[target], url = rig.Before(t, searchVia.URLs[0])
			searchVia.URLs = []string{url}
		case record.Graph:
			w.proxies[target], graphVia.URL = rig.Before(t, graphVia.URL)
		default:
			require.Fail(t, "no proxy for "+string(target))
		}
	}
	w.stores = w.open(db, searchVia, graphVia)
	return w
}

func (w *world) open(db *storetest.Database, searchConfig search.Config, graphConfig graph.Config) Stores {
	w.t.Helper()
	s := Stores{
		Catalog: w.cat, Records: store.NewReader(db.Pool), Outbox: store.NewOutbox(db.Pool),
		DeadLetters: store.NewDeadLetters(db.Pool), Tables: store.NewTables(db.Pool),
		Search: searchtest.Open(w.t, searchConfig), Graph: graphtest.Open(w.t, graphConfig),
	}
	_, err := s.Search.Ensure(w.t.Context(), mappings(w.cat))
	require.NoError(w.t, err)
	return s
}

func (w *world) openRedis() {
	w.t.Helper()
	address := os.Getenv("LAYERS_TEST_REDIS_URL")
	if address == "" {
		w.t.Fatal("LAYERS_TEST_REDIS_URL is not set: run tests by way of `make test`")
	}
	w.redis, w.redisURL = rig.LogicalRedis(w.t, address)
	w.t.Cleanup(func() { require.NoError(w.t, w.redis.FlushDB(context.Background()).Err()) })
}

var targets = []record.Target{record.Tables, record.Search, record.Graph}

func (w *world) config() Config {
	return Config{
		RedisURL: w.redisURL, Targets: targets, Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		BatchSize: 20, InFlight: 8, Lease: 3 * time.Second, Grace: 10 * time.Second,
	}
}

// run starts a dispatcher and workers. Stopping them is idempotent, and done when the test ends.
func (w *world) run(cfg Config) (stop func()) {
	w.t.Helper()
	dispatcher, err := NewDispatcher(cfg, w.stores.Outbox)
	require.NoError(w.t, err)
	workers, err := NewWorkers(cfg, w.stores)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- dispatcher.Run(ctx) }()
	go func() { ended <- workers.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(w.t, <-ended)
		require.NoError(w.t, <-ended)
	})
	w.t.Cleanup(stop)
	return stop
}

// create writes n new records of all types by turns, which refer to each other.
func (w *world) create(n int) {
	w.t.Helper()
	var changes []store.Change
	collections := w.cat.Collections()
	for range n {
		c := collections[len(w.keys)%len(collections)]
		key := record.Key{DID: someone, Collection: c.NSID, Rkey: syntax.RecordKey(w.tid())}
		w.keys = append(w.keys, key)
		changes = append(changes, w.change(record.Create, key, w.maker.Record(c.NSID)))
		w.maker.Refer(key.URI())
	}
	w.apply(changes)
}

// disturb updates every third of the records and deletes every fifth.
func (w *world) disturb() {
	w.t.Helper()
	var changes []store.Change
	var left []record.Key
	for i, key := range w.keys {
		switch {
		case i%5 == 0:
			changes = append(changes, w.change(record.Delete, key, nil))
			continue
		case i%3 == 0:
			changes = append(changes, w.change(record.Update, key, w.maker.Record(key.Collection)))
		}
		left = append(left, key)
	}
	w.keys = left
	w.apply(changes)
}

func (w *world) change(action record.Action, key record.Key, value map[string]any) store.Change {
	w.t.Helper()
	change := store.Change{Action: action, Key: key, Rev: syntax.TID(w.tid())}
	if action == record.Delete {
		return change
	}
	block, err := atdata.MarshalCBOR(value)
	require.NoError(w.t, err)
	checked, err := w.cat.Check(key, block)
	require.NoError(w.t, err)
	change.CID = "bafyreidfcm4u3vnuph5ltwdpssiz3a4xfbm2otjrdisftwnbfmnxd6lsxm"
	change.JSON, change.CreatedAt, change.Filter, change.Refs = checked.JSON, checked.CreatedAt, checked.Filter, checked.Refs
	return change
}

func (w *world) apply(changes []store.Change) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Changes: changes}))
}

func (w *world) tid() string {
	w.clock++
	return string(syntax.NewTID(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()+int64(w.clock), 0))
}

// settled waits until targets have nothing left to do.
func (w *world) settled(targets ...record.Target) {
	w.t.Helper()
	for _, target := range targets {
		w.until(fmt.Sprintf("%s has caught up", target), func() bool { return w.depth(target) == 0 })
	}
}

func (w *world) depth(target record.Target) int64 {
	w.t.Helper()
	d, err := w.direct.Outbox.Depth(w.t.Context(), target)
	require.NoError(w.t, err)
	return d.Rows + d.Sweeps
}

// until waits for something that has to come about, however long it takes on a busy machine.
func (w *world) until(what string, reached func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !reached() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// equal holds every projection to what PostgreSQL has, record by record.
func (w *world) equal() {
	w.t.Helper()
	ctx := w.t.Context()
	inGraph := map[record.Key]int64{}
	require.NoError(w.t, w.direct.Graph.Scan(ctx, func(k record.Key, v int64) error { inGraph[k] = v; return nil }))
	inTables := map[record.Key]int64{}
	layers, err := w.direct.Tables.ScanLayers(ctx, record.Key{}, 100_000)
	require.NoError(w.t, err)
	for _, l := range layers {
		inTables[l.Key] = l.Version
	}
	total := 0
	for _, c := range w.cat.Collections() {
		want, err := w.direct.Records.ScanVersions(ctx, c.NSID, record.Key{}, 100_000)
		require.NoError(w.t, err)
		inSearch := map[record.Key]int64{}
		for _, target := range project.Targets(c) {
			switch target {
			case record.Graph:
				w.contains(target, want, inGraph)
			case record.Tables:
				w.contains(target, want, inTables)
				w.annotated(want)
			case record.Search:
				require.NoError(w.t, w.direct.Search.Refresh(ctx, c.NSID))
				require.NoError(w.t, w.direct.Search.Scan(ctx, c.NSID, func(k record.Key, v int64) error { inSearch[k] = v; return nil }))
				w.contains(target, want, inSearch)
			}
		}
		require.Empty(w.t, inSearch, "documents without a record")
		total += len(want)
	}
	require.Empty(w.t, inGraph, "nodes without a record")
	require.Empty(w.t, inTables, "layers without a record")
	require.Equal(w.t, len(w.keys), total, "records in PostgreSQL")
}

// contains takes the wanted records out of those that a projection has.
func (w *world) contains(target record.Target, want []record.Pending, has map[record.Key]int64) {
	w.t.Helper()
	for _, p := range want {
		version, ok := has[p.Key]
		require.True(w.t, ok, "%s is not in %s", p.Key, target)
		require.GreaterOrEqual(w.t, version, p.Version, "%s in %s", p.Key, target)
		delete(has, p.Key)
	}
}

// annotated holds the table's rows to the layers' values.
func (w *world) annotated(layers []record.Pending) {
	w.t.Helper()
	for _, l := range layers {
		rec, err := w.direct.Records.Get(w.t.Context(), l.Key)
		require.NoError(w.t, err)
		value, err := atdata.UnmarshalJSON(rec.Value)
		require.NoError(w.t, err)
		rows, err := w.direct.Records.Annotations(w.t.Context(), l.Key)
		require.NoError(w.t, err)
		list := value["annotations"].([]any)
		require.Len(w.t, rows, len(list), l.Key)
		for i, row := range rows {
			want := list[i].(map[string]any)
			require.Equal(w.t, want["uuid"].(map[string]any)["value"], row.UUID)
			label, _ := want["label"].(string)
			require.Equal(w.t, label, row.Label)
		}
	}
}
