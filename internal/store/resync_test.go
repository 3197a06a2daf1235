package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

func (w *world) resyncs() *store.Resyncs { return store.NewResyncs(w.Pool) }

func (w *world) state(did syntax.DID, sync store.SyncState) store.RepoUpdate {
	return store.RepoUpdate{DID: did, Sync: &sync, Reason: pointer("now " + string(sync))}
}

func (w *world) due(except ...syntax.DID) []store.Due {
	w.t.Helper()
	due, err := w.resyncs().Due(w.t.Context(), 100, except)
	require.NoError(w.t, err)
	return due
}

func (w *world) add(wanted ...store.Wanted) int {
	w.t.Helper()
	n, err := w.resyncs().Add(w.t.Context(), wanted)
	require.NoError(w.t, err)
	return n
}

func (w *world) postpone(did syntax.DID, wait time.Duration) {
	w.t.Helper()
	require.NoError(w.t, w.resyncs().Postpone(w.t.Context(), did, time.Now().Add(wait), "pds.test", "it said no\x00"))
}

func TestTheListOfRepositoriesToFetchFollowsTheirStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update("", w.state(alice, store.Synchronized), w.state(bob, store.Synchronized))
	require.Empty(t, w.due())

	w.update("", w.state(alice, store.Desynchronized))
	due := w.due()
	require.Len(t, due, 1)
	require.Equal(t, store.Due{DID: alice, Reason: "now desynchronized", Repo: w.repo(alice)}, due[0])
	require.Empty(t, w.due(alice), "what is left out")

	w.update("", w.state(alice, store.Synchronized))
	require.Empty(t, w.due(), "mended without a fetch")

	w.update("", w.state(alice, store.Synchronized), w.state(alice, store.Desynchronized))
	require.Len(t, w.due(), 1, "the last state of a batch counts")
	w.update("", w.state(alice, store.Resyncing))
	require.Len(t, w.due(), 1, "until it is fetched")
	w.update("", w.state(alice, store.Synchronized), w.state(alice, store.Desynchronized))
	require.Len(t, w.due(), 1)
	w.update("", w.state(alice, store.Desynchronized), store.RepoUpdate{DID: alice, Sync: pointer(store.Synchronized), Resync: true})
	require.Empty(t, w.due())

	w.apply(put(key(bob, expressions, "one"), 1))
	require.Empty(t, w.due(), "a change alone says nothing")
}

func TestWhatIsAskedForIsFetchedEvenIfItsChainMends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update("", w.state(alice, store.Desynchronized))
	require.Zero(t, w.add(store.Wanted{DID: alice, Reason: "a new collection"}))
	w.update("", w.state(alice, store.Synchronized))
	require.Len(t, w.due(), 1)

	w.update("", w.state(alice, store.Resyncing))
	w.update("", store.RepoUpdate{DID: alice, Sync: pointer(store.Synchronized), Resync: true})
	require.Empty(t, w.due())
}

func TestARequestDuringAFetchIsNotLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update("", w.state(alice, store.Desynchronized))
	w.update("", w.state(alice, store.Resyncing))
	w.add(store.Wanted{DID: alice, Reason: "again"})
	w.postpone(alice, time.Hour)
	require.Len(t, w.due(), 1, "an attempt that began before it does not postpone it")
	w.update("", w.state(alice, store.Resyncing))
	w.add(store.Wanted{DID: alice, Reason: "again"})
	w.update("", store.RepoUpdate{DID: alice, Sync: pointer(store.Synchronized), Resync: true})
	require.Len(t, w.due(), 1, "nor does it serve it")

	w.update("", w.state(alice, store.Resyncing))
	w.postpone(alice, time.Hour)
	require.Empty(t, w.due())
	w.update("", store.RepoUpdate{DID: alice, Sync: pointer(store.Synchronized), Resync: true})
	progress, err := w.resyncs().Progress(t.Context())
	require.NoError(t, err)
	require.Zero(t, progress.Waiting)
}

// TestARequestIsHeededOnce has attempts fail before they begin a fetch, as they do while
// a host is to be left alone.
func TestARequestIsHeededOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update("", w.state(alice, store.Desynchronized), w.state(bob, store.Synchronized))
	w.update("", w.state(alice, store.Resyncing))
	w.postpone(alice, time.Hour)
	require.Empty(t, w.due())
	requests := []func(){
		func() { w.add(store.Wanted{DID: alice, Reason: "again"}) },
		func() {
			require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Hastened: []syntax.DID{alice, bob}}))
		},
	}
	attempts := []func(){
		func() { w.postpone(alice, time.Hour) },
		func() {
			require.NoError(t, w.resyncs().Defer(t.Context(), alice, time.Now().Add(time.Hour), "pds.test", "later"))
		},
	}
	for _, request := range requests {
		for _, attempt := range attempts {
			request()
			require.Len(t, w.due(), 1, "and nothing that nobody has asked for")
			attempt()
			require.Len(t, w.due(), 1, "it may have been asked for since that began")
			attempt()
			require.Empty(t, w.due())
		}
	}
}

func TestAddNeverDoubles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := syntax.DID("did:web:" + random(3000))
	require.Equal(t, 2, w.add(
		store.Wanted{DID: bob, Reason: "found", Candidate: true}, store.Wanted{DID: alice, Reason: "found\x00"},
		store.Wanted{DID: bob, Reason: "twice", Candidate: true}, store.Wanted{DID: long}))
	due := w.due()
	require.Len(t, due, 2)
	byDID := map[syntax.DID]store.Due{due[0].DID: due[0], due[1].DID: due[1]}
	require.Equal(t, store.Due{DID: bob, Reason: "found", Candidate: true, Repo: store.Repo{DID: bob}}, byDID[bob])
	require.Equal(t, "found\uFFFD", byDID[alice].Reason)

	w.postpone(bob, time.Hour)
	require.Len(t, w.due(), 1)
	require.Zero(t, w.add(store.Wanted{DID: bob, Reason: "asked"}))
	due = w.due(alice)
	require.Len(t, due, 1, "due again at once")
	require.Equal(t, 1, due[0].Attempts)
	require.Equal(t, "pds.test", due[0].Host)
	require.False(t, due[0].Candidate, "no longer in question")
	w.add(store.Wanted{DID: bob, Candidate: true})
	require.False(t, w.due(alice)[0].Candidate)

	require.NoError(t, w.resyncs().Remove(t.Context(), alice))
	require.Len(t, w.due(), 1)
	require.NoError(t, w.resyncs().Postpone(t.Context(), alice, time.Now(), "", ""), "of one that is gone: nothing")
	require.Len(t, w.due(), 1)
}

func TestDueGivesTheLongestDueFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dids := make([]syntax.DID, 5)
	for i := range dids {
		dids[i] = syntax.DID(fmt.Sprintf("did:plc:%024d", i))
		w.add(store.Wanted{DID: dids[i]})
		w.postpone(dids[i], -time.Duration(i+1)*time.Hour)
	}
	due, err := w.resyncs().Due(t.Context(), 2, []syntax.DID{dids[4]})
	require.NoError(t, err)
	require.Len(t, due, 2)
	require.Equal(t, dids[3], due[0].DID)
	require.Equal(t, dids[2], due[1].DID)
}

func TestProgressCountsWhatWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	progress, err := w.resyncs().Progress(t.Context())
	require.NoError(t, err)
	require.Equal(t, store.Progress{Hosts: progress.Hosts}, progress)
	require.Empty(t, progress.Hosts)

	w.update("", w.state(alice, store.Resyncing), w.state(bob, store.Desynchronized))
	for i := range 4 {
		did := syntax.DID(fmt.Sprintf("did:plc:%024d", i))
		w.add(store.Wanted{DID: did})
		if i > 0 {
			require.NoError(t, w.resyncs().Postpone(t.Context(), did, time.Now().Add(time.Duration(i)*time.Hour), []string{"", "a", "b", "b"}[i], "no"))
		}
	}
	progress, err = w.resyncs().Progress(t.Context())
	require.NoError(t, err)
	require.Equal(t, 5, progress.Waiting)
	require.Equal(t, 2, progress.Due)
	require.Equal(t, 3, progress.Failing)
	require.Equal(t, 1, progress.Resyncing)
	require.Equal(t, []store.HostFailures{{Host: "b", Repos: 2, LastError: "no"}, {Host: "a", Repos: 1, LastError: "no"}}, progress.Hosts)
	require.WithinDuration(t, time.Now().Add(time.Hour), progress.NextDue, 10*time.Minute)

	marked, err := w.writer.Resyncing(t.Context())
	require.NoError(t, err)
	require.Equal(t, []syntax.DID{alice}, marked)
}

func TestAnOverrunAsksForEverythingInTheTransactionOfTheCursor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := syntax.DID("did:plc:goneeeeeeeeeeeeeeeeeeeeee")
	w.update("", w.state(alice, store.Synchronized), w.state(gone, store.Synchronized))
	w.update("", store.RepoUpdate{DID: gone, Active: pointer(false), Status: pointer(store.StatusDeleted)})
	require.NoError(t, w.resyncs().SaveDiscovery(t.Context(), store.Discovery{Collection: layers, Host: "relay", Cursor: "c", Found: 3}))
	before := w.discoveries()

	refused := store.Batch{Host: "relay.test", Cursor: 9, Overrun: true, Changes: []store.Change{put(key(bob, expressions, "bad"), 1)}}
	refused.Changes[0].JSON = []byte("{")
	require.ErrorIs(t, w.writer.Apply(t.Context(), refused), store.ErrRejected)
	require.Empty(t, w.due())
	require.Equal(t, before, w.discoveries())

	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{
		Host: "relay.test", Cursor: 9, Overrun: true, Repos: []store.RepoUpdate{w.state(bob, store.Synchronized)},
	}))
	due := w.due()
	require.Len(t, due, 1, "neither one that is new with the batch, nor a tombstone")
	require.Equal(t, alice, due[0].DID)
	require.Contains(t, due[0].Reason, "missed")
	after := w.discoveries()[0]
	require.Empty(t, after.Cursor)
	require.Zero(t, after.Found)
	require.True(t, after.StartedAt.After(before[0].StartedAt))
	require.ErrorIs(t, w.resyncs().SaveDiscovery(t.Context(), before[0]), store.ErrRestarted, "the search before does not end the new one")
	seq, _, err := w.writer.Cursor(t.Context(), "relay.test")
	require.NoError(t, err)
	require.EqualValues(t, 9, seq)

	n, err := w.resyncs().AddAll(t.Context(), "asked")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func (w *world) discoveries() []store.Discovery {
	w.t.Helper()
	list, err := w.resyncs().Discoveries(w.t.Context())
	require.NoError(w.t, err)
	return list
}

func TestDiscoveriesAreResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	list := w.resyncs()
	require.Empty(t, w.discoveries())
	require.NoError(t, list.SaveDiscovery(t.Context(), store.Discovery{Collection: layers, Host: "https://relay.test", Method: "m", Cursor: "c1", Found: 10}))
	require.NoError(t, list.SaveDiscovery(t.Context(), store.Discovery{Collection: corpora, StartedAt: time.Now()}))
	found := w.discoveries()
	require.Len(t, found, 2)
	d := found[0]
	require.Equal(t, layers, d.Collection)
	require.Equal(t, "c1", d.Cursor)
	require.Equal(t, 10, d.Found)
	require.False(t, d.StartedAt.IsZero())
	require.True(t, d.FinishedAt.IsZero())

	d.Cursor, d.FinishedAt = "", time.Now()
	require.NoError(t, list.SaveDiscovery(t.Context(), d))
	require.False(t, w.discoveries()[0].FinishedAt.IsZero())
	require.NoError(t, list.RestartDiscoveries(t.Context(), layers))
	require.True(t, w.discoveries()[0].FinishedAt.IsZero())
	require.ErrorIs(t, list.SaveDiscovery(t.Context(), d), store.ErrRestarted)
	require.NoError(t, list.SaveDiscovery(t.Context(), w.discoveries()[0]))
	require.NoError(t, list.RestartDiscoveries(t.Context()))
	require.ErrorIs(t, list.SaveDiscovery(t.Context(), found[1]), store.ErrRestarted)
}

func TestHeldEventsComeBackInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hold := func(events ...store.Held) {
		require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Held: events}))
	}
	frame := func(did syntax.DID, seq int64) store.Held {
		return store.Held{DID: did, Host: "relay.test", Seq: seq, Rev: rev(int(seq)), Frame: []byte{0, byte(seq), 0xff}}
	}
	held := func(did syntax.DID, after int64) []store.Held {
		events, err := w.writer.HeldEvents(t.Context(), did, after)
		require.NoError(t, err)
		return events
	}
	hold(frame(alice, 3), frame(bob, 1), frame(alice, 2))
	hold(frame(alice, 9))
	events := held(alice, 0)
	require.Len(t, events, 3)
	for i, seq := range []int64{3, 2, 9} {
		want := frame(alice, seq)
		want.ID = events[i].ID
		require.Equal(t, want, events[i])
	}
	require.Equal(t, events[2:], held(alice, events[1].ID))
	revs, err := w.writer.HeldRevs(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[syntax.DID]syntax.TID{alice: rev(9), bob: rev(1)}, revs)

	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{DropHeld: []syntax.DID{alice}, Held: []store.Held{frame(alice, 10)}}))
	events = held(alice, 0)
	require.Len(t, events, 1, "those of the batch itself stay")
	require.EqualValues(t, 10, events[0].Seq)
	require.Len(t, held(bob, 0), 1)
}

func TestAPurgedRepositoryIsATombstone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, other := key(alice, expressions, "one"), key(bob, expressions, "two")
	w.apply(put(k, 1), put(other, 1))
	deleted := store.RepoUpdate{DID: alice, Active: pointer(false), Status: pointer(store.StatusDeleted), Seq: pointer(int64(50))}
	w.update("relay.test", deleted, store.RepoUpdate{
		DID: alice, Sync: pointer(store.Resyncing), Handle: pointer(syntax.Handle("alice.test")), PDS: pointer("https://pds.test"), Rev: pointer(rev(4)),
	})
	letters := store.NewDeadLetters(w.Pool)
	require.NoError(t, letters.Add(t.Context(), []store.DeadLetter{{DID: alice, Seq: 1, Stage: "verify"}, {DID: bob, Seq: 2, Stage: "verify"}}))
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Held: []store.Held{{DID: alice, Frame: []byte{1}}, {DID: bob, Frame: []byte{2}}}}))
	erase := remove(k, 1)
	erase.Resync = true
	w.apply(erase)

	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Purge: []syntax.DID{alice}}))
	got := w.repo(alice)
	require.False(t, got.Active)
	require.Equal(t, store.StatusDeleted, got.Status)
	require.Equal(t, store.Synchronized, got.Sync)
	require.Empty(t, string(got.Rev)+string(got.Handle)+got.PDS)
	for _, d := range w.due() {
		require.NotEqual(t, alice, d.DID)
	}
	var rest int
	require.NoError(t, w.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM records WHERE did = $1) + (SELECT count(*) FROM refs WHERE did = $1)
		+ (SELECT count(*) FROM dead_letters WHERE did = $1) + (SELECT count(*) FROM held_events WHERE did = $1)`, alice).Scan(&rest))
	require.Zero(t, rest)
	require.NoError(t, w.Pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM held_events)").Scan(&rest))
	require.Equal(t, 2, rest, "nobody else's")

	old := store.RepoUpdate{DID: alice, Active: pointer(true), Status: pointer("active"), Seq: pointer(int64(40))}
	w.update("relay.test", old)
	require.Equal(t, store.StatusDeleted, w.repo(alice).Status, "a replay does not bring it back")
	old.Seq = pointer(int64(60))
	w.update("relay.test", old)
	require.True(t, w.repo(alice).Active, "newer data does")
}

func TestWhatARepositoryHasIsListedAlsoWhileItIsInactive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []store.Stored
	for i := range 7 {
		k := key(alice, layers, fmt.Sprintf("r%d", i))
		w.apply(put(k, i+1))
		want = append(want, store.Stored{Rkey: k.Rkey, CID: cid(i + 1)})
	}
	quoted := syntax.NSID("app.o'brien.post")
	w.apply(put(key(alice, posts, "p"), 1), put(key(alice, posts, "q"), 1), put(key(alice, quoted, "p"), 1), put(key(bob, corpora, "c"), 1))
	w.update("", store.RepoUpdate{DID: alice, Active: pointer(false)})

	collections, err := w.writer.RepoCollections(t.Context(), alice)
	require.NoError(t, err)
	require.Equal(t, []syntax.NSID{posts, quoted, layers}, collections)
	none, err := w.writer.RepoCollections(t.Context(), "did:plc:nobody")
	require.NoError(t, err)
	require.Empty(t, none)

	var got []store.Stored
	for after := syntax.RecordKey(""); ; after = got[len(got)-1].Rkey {
		page, err := w.writer.RepoRecords(t.Context(), alice, layers, after, 3)
		require.NoError(t, err)
		got = append(got, page...)
		if len(page) < 3 {
			break
		}
	}
	require.Equal(t, want, got)
	page, err := w.writer.RepoRecords(t.Context(), alice, quoted, "", 3)
	require.NoError(t, err)
	require.Len(t, page, 1)
}

func TestSeenOnlyGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update("", store.RepoUpdate{DID: alice, Rev: pointer(rev(3))})
	require.Equal(t, rev(3), w.repo(alice).Seen)
	w.update("", store.RepoUpdate{DID: alice, Seen: pointer(rev(9))})
	w.update("", store.RepoUpdate{DID: alice, Seen: pointer(rev(7)), Rev: pointer(rev(4))})
	require.Equal(t, rev(9), w.repo(alice).Seen)
	require.Equal(t, rev(4), w.repo(alice).Rev)
}

// TestRepositoriesFromBeforeAreFetched migrates a database of the version before.
func TestRepositoriesFromBeforeAreFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.NoError(t, store.MigrateDown(t.Context(), w.URL, 4))
	conn, err := pgx.Connect(t.Context(), w.URL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO repos (did, sync, complete, reason, updated_at) VALUES
		('did:plc:whole', 'synchronized', true, '', now()), ('did:plc:partial', 'synchronized', false, '', now()),
		('did:plc:broken', 'desynchronized', true, 'a gap', now())`)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context(), w.URL, partitions, silent))
	reasons := map[syntax.DID]string{}
	for _, d := range w.due() {
		reasons[d.DID] = d.Reason
	}
	require.Equal(t, map[syntax.DID]string{"did:plc:broken": "a gap", "did:plc:partial": "followed from the middle of its history"}, reasons)
}
