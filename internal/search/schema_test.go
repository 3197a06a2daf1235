package search_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
)

func TestEnsureIsIdempotentAndAsksForARebuildUntilItIsDone(t *testing.T) {
	t.Parallel()
	cfg := searchtest.Config(t)
	mappings := []search.Mapping{mapping(), {Collection: "pub.layers.test.empty"}}
	both := []syntax.NSID{collection, "pub.layers.test.empty"}
	for range 2 { // a process that dies before the rebuild ends is asked again
		rebuild, err := searchtest.Open(t, cfg).Ensure(t.Context(), mappings)
		require.NoError(t, err)
		require.Equal(t, both, rebuild)
	}
	client := searchtest.Open(t, cfg)
	_, err := client.Ensure(t.Context(), mappings)
	require.NoError(t, err)
	require.NoError(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	require.NotNil(t, source(t, client.Alias(collection), key("a").String()), "a first index answers while it fills")
	require.NoError(t, client.Rebuilt(t.Context(), collection))

	rebuild, err := searchtest.Open(t, cfg).Ensure(t.Context(), mappings)
	require.NoError(t, err)
	require.Equal(t, both[1:], rebuild)
	require.Len(t, scan(t, client), 1, "Ensure leaves documents alone")
}

func TestEnsureInSeveralProcessesAtOnce(t *testing.T) {
	t.Parallel()
	cfg := searchtest.Config(t)
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		client := searchtest.Open(t, cfg)
		wg.Go(func() {
			_, errs[i] = client.Ensure(t.Context(), []search.Mapping{mapping()})
			if errs[i] == nil {
				errs[i] = client.Write(t.Context(), []search.Document{document("a", int64(i+1), `{}`)})
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	client := searchtest.Open(t, cfg)
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	require.Equal(t, map[string]int64{key("a").String(): 6}, scan(t, client))
}

func TestChangedMappingAnswersFromTheOldIndexUntilRebuilt(t *testing.T) {
	t.Parallel()
	old, cfg := open(t)
	ctx := t.Context()
	require.NoError(t, old.Write(ctx, []search.Document{document("kept", 1, `{"kind":"k"}`), document("gone", 2, `{"kind":"k"}`)}))
	require.NoError(t, old.Rebuilt(ctx, collection))
	require.NoError(t, old.Refresh(ctx, collection))

	changed := mapping()
	changed.Properties["count"] = map[string]any{"type": "keyword"}
	client := searchtest.Open(t, cfg)
	rebuild, err := client.Ensure(ctx, []search.Mapping{changed})
	require.NoError(t, err)
	require.Equal(t, []syntax.NSID{collection}, rebuild)
	alias := client.Alias(collection)
	require.Equal(t, 2, hits(t, alias, `{"match_all":{}}`), "queries must not switch to an empty index")
	require.Empty(t, scan(t, client), "audits look at the index to be")

	// Changes during the rebuild reach both; what only the old mapping refuses is no failure.
	require.NoError(t, client.Write(ctx, []search.Document{
		deletion("gone", 3), document("new", 4, `{"kind":"k"}`), document("odd", 5, `{"count":"not a number"}`),
	}))
	require.NoError(t, old.Refresh(ctx, collection))
	require.Nil(t, source(t, alias, key("gone").String()))
	require.NotNil(t, source(t, alias, key("new").String()))
	require.Nil(t, source(t, alias, key("odd").String()))
	require.Equal(t, map[string]int64{key("new").String(): 4, key("odd").String(): 5}, scan(t, client))

	require.NoError(t, client.Write(ctx, []search.Document{document("kept", 1, `{"kind":"k"}`)}))
	require.NoError(t, client.Rebuilt(ctx, collection))
	require.Len(t, scan(t, client), 3)
	require.Equal(t, 3, hits(t, alias, `{"match_all":{}}`))
	require.NotNil(t, source(t, alias, key("odd").String()))

	rebuild, err = searchtest.Open(t, cfg).Ensure(ctx, []search.Mapping{changed})
	require.NoError(t, err)
	require.Empty(t, rebuild)

	// The old release is still running: its index is gone, and must not come back without its mapping.
	got := failures(t, old.Write(ctx, []search.Document{document("late", 9, `{}`)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable, "%v", got[0].Err)
	require.Equal(t, 3, hits(t, cfg.Prefix+"-*", `{"match_all":{}}`))
}

func TestCollectionsThatShareAnIndexNameAreRefused(t *testing.T) {
	t.Parallel()
	client := searchtest.New(t)
	_, err := client.Ensure(t.Context(), []search.Mapping{{Collection: "pub.layers.test.aB"}, {Collection: "pub.layers.test.ab"}})
	require.ErrorContains(t, err, "share the index name")
}

func TestDropLeavesOtherPrefixes(t *testing.T) {
	t.Parallel()
	client, cfg := open(t)
	cfg.Prefix += "-longer"
	t.Cleanup(func() { require.NoError(t, searchtest.Open(t, cfg).Drop(context.Background())) })
	other := searchtest.Open(t, cfg)
	_, err := other.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	require.NoError(t, client.Drop(t.Context()))
	res, err := http.Get(searchtest.URL(t) + "/" + client.Alias(collection))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	require.NoError(t, other.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
}

// The server takes mappings as large as the longest chain of lexicon definitions gives.
func TestLargeMapping(t *testing.T) {
	t.Parallel()
	properties := map[string]any{}
	for i := range 1500 {
		properties["f"+syntax.NewTIDNow(uint(i%1024)).String()+string(rune('a'+i%26))] = map[string]any{"type": "keyword"}
	}
	for i := range 150 {
		properties["n"+string(rune('a'+i%26))+string(rune('a'+i/26))] = map[string]any{"type": "nested"}
	}
	_, err := searchtest.New(t).Ensure(t.Context(), []search.Mapping{{Collection: collection, Properties: properties}})
	require.NoError(t, err)
}
