package store_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// told is an event in short.
func told(e store.Event) string {
	if e.OfAccount() {
		return fmt.Sprintf("%s %t %s", e.Key.DID, e.Active, e.Status)
	}
	return fmt.Sprintf("%s %s %s", e.Action, e.Key.Rkey, e.CID)
}

// events reads the whole log behind a cursor.
func (w *world) events(after int64) (lines []string, events []store.Event) {
	w.t.Helper()
	for {
		page, err := w.reader.Events(w.t.Context(), after)
		require.NoError(w.t, err)
		for _, e := range page.Events {
			lines, events = append(lines, told(e)), append(events, e)
		}
		require.GreaterOrEqual(w.t, page.Next, after)
		after = page.Next
		if !page.More {
			require.Equal(w.t, page.Head, page.Next)
			return lines, events
		}
	}
}

func TestEventsTellWhatChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := key(alice, expressions, "one"), key(alice, expressions, "two")
	w.apply(put(one, 1), put(two, 1))
	w.apply(put(one, 1))                                                  // a replay
	w.apply(put(one, 2), put(one, 3), remove(two, 2), remove(two, 2))     // the last of each counts
	w.apply(put(two, 4), remove(two, 5), remove(key(bob, posts, "x"), 1)) // nothing that anyone could see
	lines, events := w.events(0)
	require.Equal(t, []string{
		"create one " + string(cid(1)), "create two " + string(cid(1)),
		"update one " + string(cid(3)), "delete two ",
	}, lines)
	before := int64(0)
	for _, e := range events {
		require.Greater(t, e.Cursor, before)
		before = e.Cursor
		require.WithinDuration(t, time.Now(), e.Time, time.Hour)
	}
	for i, e := range events { // from the middle of a transaction, too
		rest, _ := w.events(e.Cursor)
		require.Equal(t, append([]string(nil), lines[i+1:]...), rest)
	}
	got, err := w.reader.Get(t.Context(), one)
	require.NoError(t, err)
	require.Equal(t, got.Version, events[2].Cursor)
}

func TestEventsKnowTheirTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refer := func(n int, targets ...string) store.Change {
		c := put(key(alice, layers, "layer"), n)
		for _, target := range targets {
			c.Refs = append(c.Refs, record.Ref{Path: "expression", Target: syntax.ATURI(target)})
		}
		return c
	}
	linked := refer(1, "at://one", "at://two", "at://one")
	linked.Links = []record.Link{{Path: "knowledgeRefs[].uri", Target: "https://example.org/q1"}}
	w.apply(linked)
	w.apply(refer(2, "at://two", "at://three"))
	w.apply(remove(key(alice, layers, "layer"), 3))
	_, events := w.events(0)
	require.Len(t, events, 3)
	hashes := func(targets ...string) (all []int64) {
		for _, target := range targets {
			all = append(all, store.TargetHash(target))
		}
		return all
	}
	require.ElementsMatch(t, hashes("at://one", "at://two", "https://example.org/q1"), events[0].Targets)
	require.ElementsMatch(t, hashes("at://one", "at://two", "https://example.org/q1", "at://three"), events[1].Targets)
	require.ElementsMatch(t, hashes("at://two", "at://three"), events[2].Targets)
}

func TestEventsOfAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "one"), 1), put(key(bob, expressions, "two"), 1))
	account := func(seq int64, active bool, status string) {
		require.NoError(t, w.writer.Apply(t.Context(), store.Batch{
			Host: "relay.test", Cursor: seq, Repos: []store.RepoUpdate{{DID: alice, Active: &active, Status: &status, Seq: &seq}},
		}))
	}
	account(1, true, "active") // nothing new
	account(2, false, "deactivated")
	lines, _ := w.events(0)
	require.Equal(t, []string{"create two " + string(cid(1)), string(alice) + " false deactivated"}, lines, "nothing of an inactive account's records")
	account(3, false, "takendown")
	account(4, true, "active")
	lines, _ = w.events(0)
	require.Equal(t, []string{
		"create one " + string(cid(1)), "create two " + string(cid(1)),
		string(alice) + " false deactivated", string(alice) + " false takendown", string(alice) + " true active",
	}, lines)
}

func TestEventsInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []string
	n := 0
	for batch := range 130 { // more rows, and more events in some, than a page has
		var changes []store.Change
		for range 1 + batch%2*60 {
			n++
			k := key(alice, expressions, fmt.Sprintf("r%05d", n))
			changes = append(changes, put(k, n))
			want = append(want, "create "+string(k.Rkey)+" "+string(cid(n)))
		}
		w.apply(changes...)
	}
	lines, events := w.events(0)
	require.Equal(t, want, lines)
	rest, _ := w.events(events[2345].Cursor)
	require.Equal(t, want[2346:], rest)
}

func TestEventsAreTrimmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := store.NewEventLog(w.Pool)
	for n := 1; n <= 5; n++ {
		w.apply(put(key(alice, expressions, fmt.Sprint(n)), n))
	}
	_, events := w.events(0)
	since := func() int64 {
		page, err := w.reader.Events(t.Context(), math.MaxInt64)
		require.NoError(t, err)
		require.Empty(t, page.Events)
		return page.Since
	}
	begun := since()
	require.NoError(t, log.Trim(t.Context(), time.Hour, 1000))
	require.Equal(t, begun, since(), "nothing is old")

	// Those that are so many changes back.
	require.NoError(t, log.Trim(t.Context(), time.Hour, events[4].Cursor-events[2].Cursor))
	require.Equal(t, events[1].Cursor, since())
	lines, _ := w.events(since())
	require.Len(t, lines, 3)

	// Those of so long ago.
	_, err := w.Pool.Exec(t.Context(), "UPDATE events SET at = at - interval '2 hours' WHERE version <= $1", events[3].Cursor)
	require.NoError(t, err)
	require.NoError(t, log.Trim(t.Context(), time.Hour, 1000))
	require.Equal(t, events[3].Cursor, since())
	lines, _ = w.events(0)
	require.Len(t, lines, 1)

	require.NoError(t, log.Trim(t.Context(), 0, 1000))
	require.Equal(t, events[4].Cursor, since(), "whoever has seen the last has missed none")
}

func TestEventsAreRecordedFromWhenTheyAreWanted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	w := &world{Database: db, reader: store.NewReader(db.Pool), t: t}
	_, err := w.reader.Events(t.Context(), 0)
	require.ErrorIs(t, err, store.ErrNoEvents)
	with := func(writer *store.Writer, n int) {
		release, _, err := writer.Lock(t.Context())
		require.NoError(t, err)
		defer release()
		w.writer = writer
		w.apply(put(key(alice, expressions, fmt.Sprint(n)), n))
	}
	writer := func() *store.Writer { return store.NewWriter(db.Pool, routes, silent) }
	with(writer().WithoutEvents(), 1)
	_, err = w.reader.Events(t.Context(), 0)
	require.ErrorIs(t, err, store.ErrNoEvents)
	with(writer(), 2)
	with(writer(), 3) // the next process goes on
	lines, events := w.events(0)
	require.Equal(t, []string{"create 2 " + string(cid(2)), "create 3 " + string(cid(3))}, lines)
	page, err := w.reader.Events(t.Context(), 0)
	require.NoError(t, err)
	require.Less(t, page.Since, events[0].Cursor)
	require.Positive(t, page.Since, "the first change came before the log")
	with(writer().WithoutEvents(), 4)
	with(writer(), 5)
	page, err = w.reader.Events(t.Context(), 0)
	require.NoError(t, err)
	require.Greater(t, page.Since, events[1].Cursor, "the fourth was missed")
	require.Len(t, page.Events, 1)
}

func TestEventsOfDeletedAccountsGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := store.NewEventLog(w.Pool)
	gone := func() error { return log.Purge(t.Context()) }
	w.apply(put(key(alice, expressions, "one"), 1), put(key(bob, expressions, "two"), 1))
	w.apply(put(key(alice, expressions, "three"), 2))
	require.NoError(t, gone())
	count, err := log.Count(t.Context(), alice)
	require.NoError(t, err)
	require.Equal(t, 2, count, "is not deleted")
	active, status := false, store.StatusDeleted
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: alice, Active: &active, Status: &status}}}))
	require.NoError(t, gone())
	w.apply(remove(key(alice, expressions, "one"), 3), remove(key(alice, expressions, "three"), 3)) // as happens afterwards
	require.NoError(t, gone())
	count, err = log.Count(t.Context(), alice)
	require.NoError(t, err)
	require.Zero(t, count)
	lines, _ := w.events(0)
	require.Equal(t, []string{"create two " + string(cid(1)), string(alice) + " false deleted"}, lines)
	w.apply(put(key(bob, expressions, "four"), 4))
	lines, _ = w.events(0)
	require.Len(t, lines, 3, "the log goes on")
}
