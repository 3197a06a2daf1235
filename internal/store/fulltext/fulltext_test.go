package fulltext_test

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/query/querytest"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

type underTest struct {
	*fulltext.Searcher
	documents *fulltext.Documents
	db        *storetest.Database
}

func newUnderTest(t *testing.T, world querytest.World) underTest {
	t.Helper()
	db := storetest.New(t)
	return underTest{fulltext.NewSearcher(db.Pool, world.Schema), fulltext.NewDocuments(db.Pool, world.Schema), db}
}

func (u underTest) Put(t *testing.T, records ...querytest.Projected) {
	t.Helper()
	var docs []fulltext.Document
	var layers []store.Layer
	for _, r := range records {
		d := r.Document
		docs = append(docs, fulltext.Document{Key: d.Key, Version: d.Version, CID: d.CID, CreatedAt: d.CreatedAt, Body: d.Body})
		if r.Annotated {
			layers = append(layers, store.Layer{Key: d.Key, Version: d.Version, Deleted: d.Body == nil, Rows: r.Annotations})
		}
	}
	require.NoError(t, u.documents.Write(t.Context(), docs))
	require.NoError(t, store.NewTables(u.db.Pool).ReplaceAnnotations(t.Context(), layers))
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
