package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
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
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

func loadCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	return c
}

func mappings(cat *catalog.Catalog) (all []search.Mapping) {
	for _, c := range cat.Collections() {
		if m, ok := project.Mapping(c); ok {
			all = append(all, m)
		}
	}
	return all
}

// extremes are records of every type: with everything in them, with nothing but
// what is required, as far as each rule goes, and as large as a record can be.
func extremes(t testing.TB, cat *catalog.Catalog) []item {
	t.Helper()
	var items []item
	add := func(nsid syntax.NSID, value map[string]any) {
		block, err := atdata.MarshalCBOR(value)
		require.NoError(t, err)
		key := record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: nsid, Rkey: syntax.RecordKey(fmt.Sprintf("r%d", len(items)))}
		checked, err := cat.Check(key, block)
		require.NoError(t, err)
		rec := &record.Record{
			Key: key, CID: "bafyreidfcm4u3vnuph5ltwdpssiz3a4xfbm2otjrdisftwnbfmnxd6lsxm", Rev: "3kznmn7xqxl22",
			Value: checked.JSON, CreatedAt: checked.CreatedAt, IndexedAt: time.Now(), Version: 7,
		}
		items = append(items, item{key: key, rows: []record.Pending{{Key: key, Version: 7}}, present: rec})
	}
	for _, c := range cat.Collections() {
		add(c.NSID, fixture.Full(c.NSID))
		add(c.NSID, fixture.Minimal(c.NSID))
		for _, limit := range fixture.Limits(c.NSID) {
			add(c.NSID, limit.Value)
		}
	}
	const layer = "pub.layers.annotation.annotationLayer"
	var smallest, fullest []any
	for i := range 50_000 {
		smallest = append(smallest, map[string]any{"uuid": map[string]any{"value": fmt.Sprint(i)}})
	}
	for range 200 {
		fullest = append(fullest, fixture.Full(layer)["annotations"].([]any)[0])
	}
	for _, list := range [][]any{smallest, fullest} {
		value := fixture.Minimal(layer)
		value["annotations"] = list
		add(layer, value)
	}
	return items
}

// TestStoresTakeEveryValidRecord: what a lexicon accepts, no store refuses.
func TestStoresTakeEveryValidRecord(t *testing.T) {
	t.Parallel()
	ctx, cat := t.Context(), loadCatalog(t)
	items := extremes(t, cat)
	t.Run("search", func(t *testing.T) {
		t.Parallel()
		client := searchtest.New(t)
		_, err := client.Ensure(ctx, mappings(cat))
		require.NoError(t, err)
		require.Empty(t, searchSink{cat, client}.write(ctx, items))
		want := map[syntax.NSID]int64{}
		for _, it := range items {
			want[it.key.Collection]++
		}
		for _, m := range mappings(cat) {
			require.NoError(t, client.Refresh(ctx, m.Collection))
			n, err := client.Count(ctx, m.Collection)
			require.NoError(t, err)
			require.Equal(t, want[m.Collection], n, m.Collection)
		}
	})
	t.Run("graph", func(t *testing.T) {
		t.Parallel()
		client := graphtest.New(t)
		require.Empty(t, graphSink{cat, client, store.NewReader(storetest.New(t).Pool), newKnowledgeCounters(cat, record.Graph)}.write(ctx, items))
		found := 0
		require.NoError(t, client.Scan(ctx, func(record.Key, int64) error { found++; return nil }))
		require.Equal(t, len(items), found)
	})
}

// TestALateTaskBringsNothingOfADeletedAccountBack has a worker write what it had read
// before the account went, when another worker has removed it already.
func TestALateTaskBringsNothingOfADeletedAccountBack(t *testing.T) {
	t.Parallel()
	cat, client, db := loadCatalog(t), graphtest.New(t), storetest.New(t)
	sink := graphSink{cat, client, store.NewReader(db.Pool), newKnowledgeCounters(cat, record.Graph)}
	stale := extremes(t, cat)[:40]
	gone := make([]item, len(stale))
	for i, it := range stale {
		gone[i] = item{key: it.key, rows: []record.Pending{{Key: it.key, Version: 9}}}
	}
	require.Empty(t, sink.write(t.Context(), stale))
	require.Empty(t, sink.write(t.Context(), gone))
	stored, err := client.Get(t.Context(), stale[0].key)
	require.NoError(t, err)
	require.EqualValues(t, 9, stored.Version, "the version of what an account has deleted itself is kept")

	inactive, status := false, store.StatusDeleted
	update := store.RepoUpdate{DID: stale[0].key.DID, Active: &inactive, Status: &status}
	require.NoError(t, db.Writer(t, nil).Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{update}}))
	require.Empty(t, sink.write(t.Context(), gone))
	none := func() {
		for _, it := range stale {
			_, err := client.Get(t.Context(), it.key)
			require.ErrorIs(t, err, graph.ErrNotFound, it.key)
		}
	}
	none()
	require.Empty(t, sink.write(t.Context(), stale))
	none()
}
