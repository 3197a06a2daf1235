package store_test

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// TestEachChangeIsNoted looks, after each kind of change, which answers from before it
// may be out of date.
func TestEachChangeIsNoted(t *testing.T) {
	t.Parallel()
	const a, b, foreign = syntax.NSID("com.example.a"), syntax.NSID("com.example.b"), syntax.NSID("org.example.foreign")
	const alice, bob = syntax.DID("did:plc:alice"), syntax.DID("did:plc:bob")
	db := storetest.New(t, store.Partition{Collection: a}, store.Partition{Collection: b})
	w := db.Writer(t, store.Routes{a: {record.Search}})
	changes := store.NewChanges(db.Pool)
	versions := func() store.Versions {
		v, err := changes.Versions(t.Context())
		require.NoError(t, err)
		return v
	}
	commits := 0
	apply := func(batch store.Batch) (since func(...syntax.NSID) bool, hidden bool) {
		before := versions().Clock
		commits++
		for i := range batch.Changes {
			batch.Changes[i].Rev, batch.Changes[i].CID = rev(commits), cid(commits)
			if batch.Changes[i].Action != record.Delete {
				batch.Changes[i].JSON = []byte(`{}`)
			}
		}
		require.NoError(t, w.Apply(t.Context(), batch))
		after := versions()
		require.False(t, after.Changed(after.Clock, nil), "what is labelled now knows of everything")
		require.True(t, after.Changed(after.Clock+1, nil), "a label from the future proves nothing")
		return func(of ...syntax.NSID) bool { return after.Changed(before, of) }, after.Hidden(before)
	}
	one := func(action record.Action, did syntax.DID, collection syntax.NSID, refs ...record.Ref) store.Batch {
		return store.Batch{Changes: []store.Change{{Action: action, Key: key(did, collection, "x"), Refs: refs}}}
	}

	changed, hidden := apply(one(record.Create, alice, a, record.Ref{Path: "to", Target: key(bob, b, "x").URI()}))
	require.Equal(t, []bool{true, false, false}, []bool{changed(a), changed(b), hidden})
	changed, _ = apply(one(record.Create, bob, b))
	require.Equal(t, []bool{true, true}, []bool{changed(b), changed(a)}, "who waited for the arrival is projected again")
	for _, action := range []record.Action{record.Update, record.Delete} {
		changed, hidden = apply(one(action, bob, b))
		require.Equal(t, []bool{true, false, false}, []bool{changed(b), changed(a), hidden}, action)
	}
	changed, _ = apply(one(record.Create, alice, foreign))
	require.Equal(t, []bool{false, true}, []bool{changed(a, b), changed()}, "other collections have no row of their own")
	var rows int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM changed WHERE name = $1", foreign).Scan(&rows))
	require.Zero(t, rows)
	for _, active := range []bool{false, true} {
		status := "takendown"
		changed, hidden = apply(store.Batch{Repos: []store.RepoUpdate{{DID: alice, Active: &active, Status: &status}}})
		require.Equal(t, []bool{true, true}, []bool{changed("com.example.none"), hidden})
	}
	head := rev(99)
	changed, hidden = apply(store.Batch{Repos: []store.RepoUpdate{{DID: alice, Seen: &head}}})
	require.Equal(t, []bool{false, false}, []bool{changed(), hidden}, "no record has changed")

	before := versions().Clock
	require.NoError(t, changes.Note(t.Context(), "totals"))
	require.True(t, versions().Changed(before, []syntax.NSID{"totals"}))
	require.False(t, versions().Changed(before, []syntax.NSID{a}))
}

// TestRepairsAreNoted has a projection written again, as `layers verify --repair` does:
// what was answered from it before is not given again.
func TestRepairsAreNoted(t *testing.T) {
	t.Parallel()
	const a, b, foreign = syntax.NSID("com.example.a"), syntax.NSID("com.example.b"), syntax.NSID("org.example.foreign")
	db := storetest.New(t, store.Partition{Collection: a}, store.Partition{Collection: b})
	outbox, changes := store.NewOutbox(db.Pool), store.NewChanges(db.Pool)
	const alice = syntax.DID("did:plc:alice")
	versions := func() store.Versions {
		v, err := changes.Versions(t.Context())
		require.NoError(t, err)
		return v
	}
	for name, repair := range map[string]func() error{
		"records": func() error {
			return outbox.Enqueue(t.Context(), record.Search, []record.Key{key(alice, a, "x"), key(alice, a, "y"), key(alice, foreign, "z")})
		},
		"collections": func() error {
			return outbox.EnqueueCollections(t.Context(), record.Search, []syntax.NSID{a, foreign, "org.example.other"})
		},
	} {
		before := versions().Clock
		require.NoError(t, repair(), name)
		after := versions()
		require.True(t, after.Changed(before, []syntax.NSID{a}), name)
		require.True(t, after.Changed(before, nil), name)
		require.False(t, after.Changed(before, []syntax.NSID{b}), name)
		require.False(t, after.Hidden(before), name)
		require.False(t, after.Changed(after.Clock, nil), "what is worked out from now on is given again")
	}
}
