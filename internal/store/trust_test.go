package store_test

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// TestACreateOfWhatIsThere has creates that no verified commit would have: of records
// that are there, of a newer and of an older rev, in a collection with a partition and
// in one without.
func TestACreateOfWhatIsThere(t *testing.T) {
	t.Parallel()
	for _, collection := range []syntax.NSID{expressions, "org.example.foreign"} {
		t.Run(string(collection), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			old, fresh, other := key(alice, collection, "old"), key(alice, collection, "fresh"), key(bob, collection, "other")
			w.apply(naming(put(old, 3), "at://did:plc:bob"), naming(put(fresh, 1), "at://did:plc:bob"))
			require.True(t, w.writer.Trusts(), "nothing of it was there")
			w.drain(record.Search)

			w.apply(put(old, 2), naming(put(fresh, 2), "at://did:plc:carol"), put(other, 1))
			require.False(t, w.writer.Trusts(), "the key of what was there was taken")
			require.Equal(t, map[record.Key]syntax.CID{old: cid(3), fresh: cid(2), other: cid(1)}, w.cids(old, fresh, other))
			require.ElementsMatch(t, []string{"old at://did:plc:bob", "fresh at://did:plc:carol"}, w.texts("SELECT rkey || ' ' || target FROM refs"))

			w.apply(put(other, 2))
			require.Equal(t, map[record.Key]syntax.CID{other: cid(2)}, w.cids(other), "while creates are doubted")
		})
	}
}

// TestARecordThatComesBackWithinABatch is deleted and created in commits that are
// applied together.
func TestARecordThatComesBackWithinABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	w.apply(put(k, 1))
	w.apply(remove(k, 2), put(k, 3))
	require.True(t, w.writer.Trusts(), "it is looked for")
	require.Equal(t, map[record.Key]syntax.CID{k: cid(3)}, w.cids(k))
}

// TestWhatWasFetchedIsLookedFor: no commit proves that it is new.
func TestWhatWasFetchedIsLookedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	w.apply(put(k, 1))
	fetched := put(k, 2)
	fetched.Resync = true
	w.apply(fetched)
	require.True(t, w.writer.Trusts())
	require.Equal(t, map[record.Key]syntax.CID{k: cid(2)}, w.cids(k))
}

func (w *world) cids(keys ...record.Key) map[record.Key]syntax.CID {
	w.t.Helper()
	found, err := w.reader.Load(w.t.Context(), keys)
	require.NoError(w.t, err)
	cids := map[record.Key]syntax.CID{}
	for key, rec := range found {
		cids[key] = rec.CID
	}
	return cids
}
