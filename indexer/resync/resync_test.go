package resync

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestWhateverTheIndexHasItEndsEqual puts random contents into the index: records
// that the repository does not have, others in the place of those that it has, and
// collections that it has nothing of.
func TestWhateverTheIndexHasItEndsEqual(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 77))
		did := mixed(t, r.world, fmt.Sprintf("random-%d", seed), rng.IntN(2)*rng.IntN(300))
		truth := r.truth(did)
		var changes []store.Change
		put := func(key record.Key, c syntax.CID) {
			changes = append(changes, store.Change{Action: record.Create, Key: key, Rev: "3jzfcijpj2z2a", CID: c, JSON: []byte(`{"$type":"x"}`)})
		}
		for key, c := range truth {
			switch rng.IntN(4) {
			case 0:
				put(key, c)
			case 1:
				put(key, syntax.CID(cidOf([]byte(key.Path())).String()))
			}
		}
		for i := range rng.IntN(200) {
			collection := []syntax.NSID{corpora, expressions, "pub.layers.persona.persona", "pub.layers.media.media"}[rng.IntN(4)]
			put(record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(fmt.Sprintf("gone%04d", i))}, "bafyreigone")
		}
		foreign := record.Key{DID: did, Collection: "not.followed.any.more", Rkey: "stays"}
		put(foreign, "bafyreiforeign")
		require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Changes: changes}))

		r.want(did)
		truth[foreign] = "bafyreiforeign"
		r.eventually("it is not fetched", func() bool { _, waits := r.pending(did); return !waits && r.row(did).Sync == store.Synchronized })
		require.True(t, r.row(did).Complete)
		require.Equal(t, truth, r.indexed(did), "seed %d", seed)
	}
	require.Empty(t, r.line.reasons)

	var value []byte
	var c string
	require.NoError(t, r.db.Pool.QueryRow(t.Context(), "SELECT value, cid FROM records WHERE value::text LIKE '%random%' LIMIT 1").Scan(&value, &c))
	decoded, err := atdata.UnmarshalJSON(value)
	require.NoError(t, err)
	block, err := atdata.MarshalCBOR(decoded)
	require.NoError(t, err)
	require.Equal(t, c, cidOf(block).String(), "the value is the record's")
}

func TestInvalidRecordsGoToTheDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "invalid", 5)
	bad := map[string]any{"$type": string(corpora), "name": int64(5)}
	_, err := r.world.Commit(did,
		simulate.Write{Action: record.Create, Collection: corpora, Rkey: "bad", Value: bad, Barred: true},
		simulate.Write{Action: record.Update, Collection: corpora, Rkey: "r00001", Value: bad, Barred: true})
	require.NoError(t, err)
	old := record.Key{DID: did, Collection: corpora, Rkey: "r00001"}
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Changes: []store.Change{
		{Action: record.Create, Key: old, Rev: "3jzfcijpj2z2a", CID: "bafyreiold", JSON: []byte("{}")},
	}}))
	r.want(did)
	r.start()
	r.synchronized(did)
	require.NotContains(t, r.indexed(did), old)
	letters, err := store.NewDeadLetters(r.db.Pool).List(t.Context(), store.LetterFilter{}, 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 2)
	for _, l := range letters {
		require.Equal(t, "validate", l.Stage)
		require.Equal(t, did, l.DID)
		require.Equal(t, "name", l.Path)
		require.NotEmpty(t, l.Host)
		require.Contains(t, string(l.CID), "bafyrei")
	}
}

func TestDeletedAccountsAreEmptied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did, other := mixed(t, r.world, "deleted", 40), mixed(t, r.world, "stays", 3)
	stop := r.start()
	r.want(did, other)
	r.synchronized(did, other)
	foreign := record.Key{DID: did, Collection: "not.followed.any.more", Rkey: "goes"}
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Changes: []store.Change{
		{Action: record.Create, Key: foreign, Rev: "3jzfcijpj2z2a", CID: "bafyreiforeign", JSON: []byte("{}")},
	}}))
	stop()
	inactive, status, seq := false, store.StatusDeleted, int64(5)
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Repos: []store.RepoUpdate{{DID: did, Active: &inactive, Status: &status, Seq: &seq}}}))
	r.want(did)
	r.start()
	r.eventually("it is not purged", func() bool { _, waits := r.pending(did); return !waits })
	require.Empty(t, r.indexed(did))
	require.Equal(t, store.StatusDeleted, r.row(did).Status)
	require.Equal(t, r.truth(other), r.indexed(other))
}

func TestAccountsThatAreNotActiveWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	told, asked := mixed(t, r.world, "told", 3), mixed(t, r.world, "asked", 3)
	require.NoError(t, r.world.SetStatus(told, simulate.Deactivated))
	require.NoError(t, r.world.SetStatus(asked, simulate.TakenDown))
	inactive, status := false, "deactivated"
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: told, Active: &inactive, Status: &status}}}))
	r.want(told, asked)
	r.start()
	for did, class := range map[syntax.DID]Class{told: Deactivated, asked: TakenDown} {
		r.eventually("it is not put off", func() bool { p, ok := r.pending(did); return ok && p.cause != "" && !r.waits(did) })
		p, _ := r.pending(did)
		require.Contains(t, p.cause, string(class))
		require.Zero(t, p.attempts, "nothing failed")
	}
	require.Empty(t, r.indexed(asked))
}

// waits tells whether a repository is due.
func (r *rig) waits(did syntax.DID) bool {
	due, err := r.queue.Due(r.t.Context(), 100, nil)
	require.NoError(r.t, err)
	for _, d := range due {
		if d.DID == did {
			return true
		}
	}
	return false
}

func TestCandidatesAreAskedFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	has := mixed(t, r.world, "has", 3)
	hasNot, err := r.world.CreateAccount("has-not")
	require.NoError(t, err)
	_, err = r.world.Commit(hasNot, simulate.Create(posts, "a", map[string]any{"$type": string(posts), "text": "a", "createdAt": "2025-05-01T00:00:00.000Z"}))
	require.NoError(t, err)
	host := r.host()
	r.moved[has], r.moved[hasNot] = host.URL, host.URL
	_, err = r.queue.Add(t.Context(), []store.Wanted{{DID: has, Candidate: true}, {DID: hasNot, Candidate: true}})
	require.NoError(t, err)
	r.start()
	r.synchronized(has)
	r.eventually("it is not dropped", func() bool { _, waits := r.pending(hasNot); return !waits })
	require.Empty(t, r.row(hasNot).DID, "it is not followed")
	require.Zero(t, host.asked[hasNot], "its repository is not fetched")
}

func TestKeysThatRotatedAreLookedUpAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "rotates", 3)
	r.want(did)
	r.start()
	r.synchronized(did)
	require.NoError(t, r.world.RotateKey(did))
	_, err := r.world.Commit(did, simulate.Create(corpora, "new", corpusValue("new")))
	require.NoError(t, err)
	r.want(did)
	r.eventually("it is not fetched anew", func() bool { return len(r.indexed(did)) == 7 })
	r.synchronized(did)
}
