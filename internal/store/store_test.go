package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// The collections of these tests, and the lists that they have.
const (
	expressions syntax.NSID = "pub.layers.expression.expression"
	layers      syntax.NSID = "pub.layers.annotation.annotationLayer"
	corpora     syntax.NSID = "pub.layers.corpus.corpus"
	posts       syntax.NSID = "app.bsky.feed.post" // foreign
)

var partitions = []store.Partition{
	{Collection: expressions, Lists: []store.ListIndex{{
		Repo: true, Optional: []store.Column{{Name: "kind"}, {Name: "languages", Array: true}, {Name: "parentRef"}},
	}}},
	{Collection: layers, Lists: []store.ListIndex{{
		Required: []store.Column{{Name: "expression"}}, Optional: []store.Column{{Name: "kind"}, {Name: "tags", Array: true}},
	}}},
	{Collection: corpora, Lists: []store.ListIndex{{Required: []store.Column{{Name: "languages", Array: true}}}}},
}

var routes = store.Routes{
	expressions: {record.Search, record.Graph},
	layers:      {record.Tables, record.Search, record.Graph},
}

const (
	alice syntax.DID = "did:plc:aliceaaaaaaaaaaaaaaaaaaaa"
	bob   syntax.DID = "did:plc:bobbbbbbbbbbbbbbbbbbbbbbb"
)

// world is a database with its writer and its reader.
type world struct {
	*storetest.Database
	writer *store.Writer
	reader *store.Reader
	outbox *store.Outbox
	t      testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, partitions...)
}

func newWorldWith(t testing.TB, partitions ...store.Partition) *world {
	t.Helper()
	db := storetest.New(t, partitions...)
	return &world{Database: db, writer: db.Writer(t, routes), reader: store.NewReader(db.Pool), outbox: store.NewOutbox(db.Pool), t: t}
}

func (w *world) apply(changes ...store.Change) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(context.Background(), store.Batch{Changes: changes}))
}

func key(did syntax.DID, collection syntax.NSID, rkey string) record.Key {
	return record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(rkey)}
}

// rev is the nth commit's.
func rev(n int) syntax.TID { return syntax.TID(fmt.Sprintf("3k%011d", n)) }

func cid(n int) syntax.CID { return syntax.CID(fmt.Sprintf("bafyreia%051d", n)) }

// put is a change that makes a record in the nth commit.
func put(k record.Key, n int) store.Change {
	return store.Change{
		Action: record.Create, Key: k, Rev: rev(n), CID: cid(n),
		JSON: json.RawMessage(fmt.Sprintf(`{"$type":%q,"n":%d}`, k.Collection, n)),
	}
}

// naming gives a change a reference.
func naming(c store.Change, target syntax.ATURI) store.Change {
	c.Refs = append(c.Refs, record.Ref{Path: "ref", Target: target})
	return c
}

func remove(k record.Key, n int) store.Change {
	return store.Change{Action: record.Delete, Key: k, Rev: rev(n)}
}

func TestApplyStoresWhatIsThenRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	c := put(k, 1)
	c.CreatedAt = time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Cursor: 7, Changes: []store.Change{c}}))

	got, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, k, got.Key)
	require.Equal(t, c.CID, got.CID)
	require.Equal(t, c.Rev, got.Rev)
	require.Equal(t, string(c.JSON), string(got.Value))
	require.True(t, c.CreatedAt.Equal(got.CreatedAt))
	require.False(t, got.IndexedAt.IsZero())
	require.Positive(t, got.Version)

	seq, ok, err := w.writer.Cursor(t.Context(), "relay.test")
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 7, seq)

	loaded, err := w.reader.Load(t.Context(), []record.Key{k, key(alice, expressions, "none"), key(bob, posts, "none")})
	require.NoError(t, err)
	require.Equal(t, map[record.Key]record.Record{k: got}, loaded)

	page, err := w.reader.List(t.Context(), store.Query{Collection: expressions, Limit: 1})
	require.NoError(t, err)
	require.Equal(t, store.Page{Records: []record.Record{got}}, page)

	_, err = w.reader.Get(t.Context(), key(alice, expressions, "none"))
	require.ErrorIs(t, err, store.ErrNotFound)
}
