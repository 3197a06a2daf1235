package search_test

import (
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/query/querytest"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// underTest is the indexes, and the database that knows the accounts.
type underTest struct {
	*search.Searcher
	client *search.Client
	db     *storetest.Database
}

func newUnderTest(t *testing.T, world querytest.World) underTest {
	t.Helper()
	client, db := searchtest.New(t), storetest.New(t)
	_, err := client.Ensure(t.Context(), world.Mappings)
	require.NoError(t, err)
	return underTest{search.NewSearcher(client, world.Schema, store.NewReader(db.Pool)), client, db}
}

func (u underTest) Put(t *testing.T, records ...querytest.Projected) {
	t.Helper()
	var docs []search.Document
	touched := map[syntax.NSID]bool{}
	for _, r := range records {
		docs = append(docs, r.Document)
		touched[r.Document.Key.Collection] = true
	}
	require.NoError(t, u.client.Write(t.Context(), docs))
	for collection := range touched {
		require.NoError(t, u.client.Refresh(t.Context(), collection))
	}
}

func (u underTest) Status(t *testing.T, did syntax.DID, status string) {
	t.Helper()
	storetest.SetStatus(t, u.db, did, status)
}

func TestSearcherConforms(t *testing.T) {
	t.Parallel()
	world := querytest.NewWorld(t)
	querytest.Run(t, world, newUnderTest(t, world))
}

// TestAnExpiredViewIsSaid ends a walk by taking away what the server keeps of it.
func TestAnExpiredViewIsSaid(t *testing.T) {
	t.Parallel()
	world := querytest.NewWorld(t)
	u := newUnderTest(t, world)
	u.Put(t, querytest.Corpora(t, world, 3)...)
	answer, err := u.Search(t.Context(), query.Question{Text: "corpus", Limit: 2})
	require.NoError(t, err)
	require.Len(t, answer.Hits, 2)
	require.NoError(t, u.client.Drop(t.Context()))
	_, err = u.Search(t.Context(), query.Question{Text: "corpus", Limit: 2, Cursor: answer.Cursor})
	require.ErrorIs(t, err, query.ErrCursorExpired)
	answer, err = u.Search(t.Context(), query.Question{Text: "corpus"})
	require.NoError(t, err, "no index is no hit")
	require.Empty(t, answer.Hits)
}

// TestFirstPagesShareAView asks twice within the time for which a view is shared, and
// again when the server has lost that view.
func TestFirstPagesShareAView(t *testing.T) {
	t.Parallel()
	world := querytest.NewWorld(t)
	u := newUnderTest(t, world)
	u.Share = time.Hour
	corpora := querytest.Corpora(t, world, 3)
	found := func() int {
		answer, err := u.Search(t.Context(), query.Question{Text: "corpus"})
		require.NoError(t, err)
		return len(answer.Hits)
	}
	u.Put(t, corpora[:2]...)
	require.Equal(t, 2, found())
	u.Put(t, corpora[2:]...)
	require.Equal(t, 2, found(), "the view is from before")

	first, err := u.Search(t.Context(), query.Question{Text: "corpus", Limit: 1})
	require.NoError(t, err)
	second, err := u.Search(t.Context(), query.Question{Text: "corpus", Limit: 1, Cursor: first.Cursor})
	require.NoError(t, err)
	require.Empty(t, second.Cursor)
	require.Equal(t, 2, found(), "the end of a walk does not close what others use")

	require.NoError(t, u.client.Drop(t.Context())) // and with the indexes all views of them
	_, err = u.client.Ensure(t.Context(), world.Mappings)
	require.NoError(t, err)
	u.Put(t, corpora...)
	require.Equal(t, 3, found())
}
