package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

const lease = time.Hour

// claim takes rows that are there, without ending their lease.
func (w *world) claim(target record.Target, limit int, lease time.Duration) []record.Pending {
	w.t.Helper()
	rows, err := w.outbox.Claim(context.Background(), target, limit, lease)
	require.NoError(w.t, err)
	return rows
}

func (w *world) depth(target record.Target) store.Depth {
	w.t.Helper()
	depth, err := w.outbox.Depth(context.Background(), target)
	require.NoError(w.t, err)
	return depth
}

func TestEachChangeIsEnqueuedForTheProjectionsThatFollowItsCollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	expression, layer, post := key(alice, expressions, "one"), key(alice, layers, "one"), key(alice, posts, "one")
	w.apply(put(expression, 1), put(layer, 1), put(post, 1))
	require.Equal(t, []record.Key{layer}, keysOf(w.drain(record.Tables)))
	require.ElementsMatch(t, []record.Key{expression, layer}, keysOf(w.drain(record.Search)))
	require.ElementsMatch(t, []record.Key{expression, layer}, keysOf(w.drain(record.Graph)))
	for _, target := range []record.Target{record.Tables, record.Search, record.Graph} {
		require.True(t, w.depth(target).Empty())
	}
}

func TestClaimsComeInOrderAndAreNobodyElses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for i := range 10 {
		changes = append(changes, put(key(alice, expressions, fmt.Sprint("r", i)), 1))
	}
	w.apply(changes...)

	first, second, third := w.claim(record.Search, 4, lease), w.claim(record.Search, 4, lease), w.claim(record.Search, 4, lease)
	require.Len(t, first, 4)
	require.Len(t, second, 4)
	require.Len(t, third, 2)
	var got []record.Key
	for i, p := range slices.Concat(first, second, third) {
		got = append(got, p.Key)
		require.Equal(t, changes[i].Key, p.Key)
	}
	require.Len(t, got, 10)
	require.Empty(t, w.claim(record.Search, 4, lease))
	require.EqualValues(t, 10, w.depth(record.Search).Rows, "claimed is not done")
	require.Len(t, w.claim(record.Graph, 100, lease), 10, "each projection has rows of its own")
}

func TestRowsComeBackWhenTheirLeaseRunsOutOrIsReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "a"), 1), put(key(alice, expressions, "b"), 1))

	run := w.claim(record.Search, 10, -time.Second) // has run out at once
	require.Equal(t, run, w.claim(record.Search, 10, lease))

	require.NoError(t, w.outbox.Release(t.Context(), record.Search, run[:1], -time.Second))
	require.Equal(t, run[:1], w.claim(record.Search, 10, lease))

	require.NoError(t, w.outbox.Release(t.Context(), record.Search, run, lease))
	require.Empty(t, w.claim(record.Search, 10, lease), "released for later")

	w.apply(put(key(alice, expressions, "c"), 1))
	require.NoError(t, w.outbox.Release(t.Context(), record.Search, run, -time.Second))
	require.Equal(t, run, w.claim(record.Search, 2, lease), "what has waited longer comes first")
}

func TestDoneLeavesNewerRowsOfTheSameRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	w.apply(put(k, 1))
	first := w.claim(record.Search, 10, lease)
	w.apply(put(k, 2))
	require.NoError(t, w.outbox.Done(t.Context(), record.Search, first))
	second := w.claim(record.Search, 10, lease)
	require.Len(t, second, 1)
	require.Equal(t, k, second[0].Key)
	require.Greater(t, second[0].Version, first[0].Version)
	require.NoError(t, w.outbox.Done(t.Context(), record.Search, first), "twice is harmless")
	require.EqualValues(t, 1, w.depth(record.Search).Rows)
}

func TestManyWorkersCarryOutEachRowOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for i := range 500 {
		changes = append(changes, put(key(alice, expressions, fmt.Sprint("r", i)), 1))
	}
	w.apply(changes...)
	require.NoError(t, w.outbox.EnqueueCollections(t.Context(), record.Search, []syntax.NSID{expressions}))

	times := w.carriedOut()
	require.Len(t, times, 500)
	for k, n := range times {
		require.Equal(t, 2, n, "%s: once for its change, once for the sweep", k)
	}
}

// carriedOut has many workers carry out all there is for search, and tells how often each
// record was.
func (w *world) carriedOut() map[record.Key]int {
	w.t.Helper()
	var mu sync.Mutex
	times := map[record.Key]int{}
	var group errgroup.Group
	for range 6 {
		group.Go(func() error {
			for !w.depthOf(record.Search).Empty() {
				rows, err := w.outbox.Claim(context.Background(), record.Search, 17, lease)
				if err != nil {
					return err
				}
				mu.Lock()
				for _, r := range rows {
					times[r.Key]++
				}
				mu.Unlock()
				if err := w.outbox.Done(context.Background(), record.Search, rows); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(w.t, group.Wait())
	return times
}

// depthOf is for other goroutines than the test's.
func (w *world) depthOf(target record.Target) store.Depth {
	depth, err := w.outbox.Depth(context.Background(), target)
	if err != nil {
		w.t.Error(err)
	}
	return depth
}

// refer makes a layer that refers to records.
func refer(rkey string, n int, targets ...record.Key) store.Change {
	c := put(key(bob, layers, rkey), n)
	for i, target := range targets {
		c.Refs = append(c.Refs, record.Ref{Path: fmt.Sprint("ref", i), Target: target.URI()})
	}
	return c
}

func TestReferrersAreProjectedAgainWhenWhatTheyReferToArrives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	target := key(alice, expressions, "awaited")
	few, other := refer("few", 1, target, target), refer("other", 1, key(alice, expressions, "another"))
	w.apply(few, other)
	before, err := w.reader.Get(t.Context(), few.Key)
	require.NoError(t, err)
	for _, to := range []record.Target{record.Search, record.Graph, record.Tables} {
		w.drain(to)
	}

	w.apply(put(target, 2))
	for _, to := range []record.Target{record.Search, record.Graph} {
		named := w.drain(to)
		require.ElementsMatch(t, []record.Key{target, few.Key}, keysOf(named), to)
		require.Greater(t, named[few.Key], before.Version, "newer than what was projected of it before")
	}
	require.Empty(t, w.drain(record.Tables), "the read tables know nothing of targets")

	w.apply(put(target, 3))
	require.Equal(t, []record.Key{target}, keysOf(w.drain(record.Search)), "an update is no arrival")
	w.apply(remove(target, 4))
	w.drain(record.Search)
	w.apply(put(target, 5))
	require.ElementsMatch(t, []record.Key{target, few.Key}, keysOf(w.drain(record.Search)), "it was missing again")

	w.apply(put(key(alice, posts, "foreign"), 1), refer("tofirst", 1, key(alice, posts, "foreign")))
	require.Equal(t, []record.Key{key(bob, layers, "tofirst")}, keysOf(w.drain(record.Search)), "in one batch it has a row anyway")
}

func TestAnArrivalWithManyReferrersIsSweptInSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	target := key(alice, expressions, "popular")
	var changes []store.Change
	want := []record.Key{target}
	for i := range 250 {
		changes = append(changes, refer(fmt.Sprintf("r%03d", i), 1, target, target))
		want = append(want, changes[i].Key)
	}
	w.apply(changes...)
	w.drain(record.Search)
	w.drain(record.Graph)

	w.apply(put(target, 2))
	require.Equal(t, store.Depth{Rows: 1, Sweeps: 1}, ageless(w.depth(record.Search)), "the transaction writes no row for each referrer")
	require.Len(t, w.claim(record.Search, 30, lease), 30)
	require.Equal(t, store.Depth{Rows: 30, Sweeps: 1}, ageless(w.depth(record.Search)))
	require.NoError(t, w.outbox.Release(t.Context(), record.Search, w.claim(record.Search, 1, lease), -time.Second))
	named := w.drain(record.Search)
	require.Len(t, w.claim(record.Search, 1000, lease), 0)
	require.Len(t, named, 251-30)
	require.ElementsMatch(t, want, keysOf(w.drain(record.Graph)))
}

func ageless(d store.Depth) store.Depth {
	d.Oldest = 0
	return d
}

func TestARepositoryThatChangesItsStateIsSwept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := []record.Key{key(alice, expressions, "one"), key(alice, layers, "two")}
	w.apply(put(mine[0], 1), put(mine[1], 1), put(key(alice, posts, "foreign"), 1), put(key(bob, expressions, "other"), 1))
	versions := w.drain(record.Search)

	no, yes := false, true
	for _, active := range []*bool{&no, &no, &yes} {
		require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: alice, Active: active}}}))
		if active == &no && len(versions) == 0 {
			require.Empty(t, w.drain(record.Search), "no change, no work")
			continue
		}
		require.Equal(t, store.Depth{Sweeps: 2}, ageless(w.depth(record.Search)), "one for each collection that has records")
		again := w.drain(record.Search)
		require.ElementsMatch(t, mine, keysOf(again))
		for k, v := range again {
			require.Greater(t, v, versions[k])
		}
		versions = map[record.Key]int64{}
	}

	long := put(key(bob, expressions, "created"), 2)
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{
		Repos: []store.RepoUpdate{{DID: bob, Active: &no}}, Changes: []store.Change{long},
	}))
	require.ElementsMatch(t, []record.Key{long.Key, key(bob, expressions, "other")}, keysOf(w.drain(record.Search)))
}

func TestASweepOfALargeRepositoryGoesInSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for i := range 300 {
		changes = append(changes, put(key(alice, expressions, fmt.Sprint("r", i)), 1))
	}
	w.apply(changes...)
	w.drain(record.Search)
	no := false
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: alice, Active: &no}}}))
	seen := map[record.Key]int{}
	for live := 0; ; live++ {
		rows := w.claim(record.Search, 70, lease)
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			seen[r.Key]++
		}
		require.NoError(t, w.outbox.Done(t.Context(), record.Search, rows))
		if live < 3 { // present changes go first
			w.apply(put(key(bob, expressions, fmt.Sprint("live", live)), 1))
			require.Equal(t, bob, w.claim(record.Search, 1, lease)[0].Key.DID)
		}
	}
	swept := 0
	for k, n := range seen {
		require.Equal(t, 1, n)
		if k.DID == alice {
			swept++
		}
	}
	require.Equal(t, 300, swept)
}

func TestEnqueueForRepairs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	there, gone := key(alice, expressions, "there"), key(alice, expressions, "gone")
	w.apply(put(there, 1), put(gone, 1), remove(gone, 2))
	deleted := w.drain(record.Search)[gone]

	require.NoError(t, w.outbox.Enqueue(t.Context(), record.Search, []record.Key{there, gone}))
	named := w.drain(record.Search)
	require.ElementsMatch(t, []record.Key{there, gone}, keysOf(named))
	require.GreaterOrEqual(t, named[gone], deleted, "its removal is not behind what was projected last")

	require.NoError(t, w.outbox.EnqueueCollections(t.Context(), record.Graph, []syntax.NSID{expressions, posts}))
	w.drain(record.Graph)
	require.True(t, w.depth(record.Graph).Empty())
}

func TestDepthTellsHowLongTheOldestHasWaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.Equal(t, store.Depth{}, w.depth(record.Search))
	w.apply(put(key(alice, expressions, "one"), 1))
	_, err := w.Pool.Exec(t.Context(), "UPDATE outbox SET enqueued_at = now() - interval '1 hour'")
	require.NoError(t, err)
	w.apply(put(key(alice, expressions, "two"), 1))
	d := w.depth(record.Search)
	require.EqualValues(t, 2, d.Rows)
	require.GreaterOrEqual(t, d.Oldest, time.Hour)
}

func TestExceedsCountsAllProjectionsTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	exceeds := func(rows int64) bool {
		yes, err := w.outbox.Exceeds(t.Context(), rows)
		require.NoError(t, err)
		return yes
	}
	require.False(t, exceeds(0))
	w.apply(put(key(alice, expressions, "one"), 1), put(key(alice, expressions, "two"), 1)) // two rows each
	require.True(t, exceeds(0))
	require.True(t, exceeds(3))
	require.False(t, exceeds(4))
	rows, err := w.outbox.Claim(t.Context(), record.Search, 2, time.Minute)
	require.NoError(t, err)
	require.True(t, exceeds(3), "what is under way counts")
	require.NoError(t, w.outbox.Done(t.Context(), record.Search, rows))
	require.False(t, exceeds(2))
	require.True(t, exceeds(1))
}
