package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/volatile"
	"github.com/layers-pub/layers-appview/test/rig"
)

func TestAnswersEndWithWhatTheyFollowFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{Collections: []syntax.NSID{things}})
	w.set(things, "one")
	a.sees("one", 1)
	a.settle()
	a.sees("one", 1)
	w.set(others, "anything")
	a.sees("one", 1)

	steps := []struct {
		change func()
		want   string
	}{
		{func() { w.set(things, "two") }, "two"},
		{func() { w.hide(true) }, "nothing"},
		{func() { w.hide(false) }, "two"},
		{func() { w.set(things, "") }, "nothing"},
		{func() { w.set(things, "three") }, "three"},
	}
	for i, s := range steps {
		before := a.label()
		s.change()
		a.sees(s.want, int64(2+i))
		require.Eventually(t, func() bool { return a.label() > before }, patience, time.Millisecond)
		a.sees(s.want, int64(2+i))
	}
}

func TestAnswersThatFollowFromEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{})
	a.sees("nothing", 1)
	a.settle()
	a.sees("nothing", 1)
	w.apply([]store.Change{{Action: record.Create, Key: record.Key{DID: bob, Collection: "org.example.foreign", Rkey: "a"}, Rev: "3aaaaaaaaaa22", CID: "bafy", JSON: []byte(`{}`)}})
	a.sees("nothing", 2)
}

// TestReaderBetweenReadAndKeep is the race that a cache is known for: a reader has the
// old row, the record is changed, and only then the reader keeps what it has.
func TestReaderBetweenReadAndKeep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{Collections: []syntax.NSID{things}})
	w.set(things, "old")
	read, goOn := make(chan struct{}), make(chan struct{})
	a.between = func(context.Context, string) { close(read); <-goOn }
	first := make(chan string, 1)
	go func() { text, _ := a.ask(t.Context()); first <- text }()
	<-read
	w.set(things, "new")

	// Who comes now must not be content with what is under way.
	a.between = nil
	a.sees("new", 2)
	require.Eventually(t, func() bool { return a.label() == w.versions().Clock }, patience, time.Millisecond)
	close(goOn)
	require.Equal(t, "old", <-first, "it asked before the change")
	// Whatever the slow one keeps, over what was there, is not taken for the present.
	require.Eventually(t, func() bool { return a.label() < w.versions().Clock }, patience, time.Millisecond)
	a.sees("new", 3)
	require.Eventually(t, func() bool { return a.label() == w.versions().Clock }, patience, time.Millisecond)
	a.sees("new", 3)
}

// TestServerBehind has two processes share Redis, of which one reads from a server that
// has not heard of the change yet.
func TestServerBehind(t *testing.T) {
	t.Parallel()
	ahead, behind := newWorld(t, nil), newWorld(t, nil)
	behind.version = ahead.version
	for _, w := range []*world{ahead, behind} {
		w.set(things, "old")
	}
	ahead.set(things, "new")
	late := behind.asker(behind.redis, Source{Collections: []syntax.NSID{things}})
	late.sees("old", 1)
	late.settle()
	fresh := ahead.asker(ahead.redis, Source{Collections: []syntax.NSID{things}})
	fresh.sees("new", 1)
	require.Eventually(t, func() bool { return fresh.label() > late.w.versions().Clock }, patience, time.Millisecond)
	late.sees("old", 2) // what it cannot judge it does not take
	require.Eventually(t, func() bool { return late.label() == late.w.versions().Clock }, patience, time.Millisecond, "its own is not kept")
	behind.set(things, "new")
	late.sees("new", 3)
}

func (w *world) versions() store.Versions {
	w.t.Helper()
	v, err := store.NewChanges(w.db.Pool).Versions(w.t.Context())
	require.NoError(w.t, err)
	return v
}

func TestRedisComesAndGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	proxy, url := rig.Before(t, w.redis)
	a := w.asker(url, Source{Collections: []syntax.NSID{things}})
	a.kept.redis.Pause(time.Millisecond)
	w.set(things, "one")
	a.sees("one", 1)
	a.settle()
	a.sees("one", 1)
	a.kept.redis.Within(50 * time.Millisecond) // from now on it is away at times

	for _, fault := range []func(){proxy.Cut, proxy.Vanish, func() { proxy.Hold(rig.FromStore) }} {
		fault()
		for range 3 {
			got, err := a.ask(t.Context())
			require.NoError(t, err)
			require.Equal(t, "one", got)
		}
		w.set(things, "changed meanwhile")
		got, err := a.ask(t.Context())
		require.NoError(t, err)
		require.Equal(t, "changed meanwhile", got)
		proxy.Restore()
		// What Redis still has is from before.
		got, err = a.ask(t.Context())
		require.NoError(t, err)
		require.Equal(t, "changed meanwhile", got)
		require.Eventually(t, func() bool { // it is of use again
			before := a.made.Load()
			got, err := a.ask(t.Context())
			return err == nil && got == "changed meanwhile" && a.made.Load() == before
		}, patience, time.Millisecond)
		w.set(things, "one")
	}
	require.NoError(t, w.client().Del(t.Context(), a.kept.name(a.q.Key)).Err()) // as when it is emptied
	before := a.made.Load()
	a.sees("one", before+1)
}

// TestRedisThatFailsIsLeftAlone counts how often it is asked.
func TestRedisThatFailsIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(through(t, w.redis, "127.0.0.1:1"), Source{})
	a.kept.redis.Pause(time.Hour)
	asked := 0
	for range 10 {
		err := a.kept.redis.Do(t.Context(), func(context.Context, *redis.Client) error { asked++; return errors.New("refused") })
		require.ErrorIs(t, err, volatile.ErrAway)
	}
	require.Equal(t, 1, asked)
	a.sees("nothing", 1)
	a.sees("nothing", 2)
}

func TestWithoutPostgreSQLNothingIsGivenAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{})
	a.sees("nothing", 1)
	a.settle()
	w.db.Pool.Close()
	_, err := a.ask(t.Context())
	require.Error(t, err, "whether it still holds cannot be known")
}

func TestLargeAndPartialAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{})
	for _, answer := range []Answer{{Body: make([]byte, maxBody+1)}, {Body: []byte("part"), Partial: true}} {
		for range 2 {
			body, err := a.Do(t.Context(), a.q, func(context.Context) (Answer, error) { a.made.Add(1); return answer, nil })
			require.NoError(t, err)
			require.Len(t, body, len(answer.Body))
		}
	}
	require.Equal(t, int64(4), a.made.Load())
	require.Zero(t, a.label())
}

func TestErrorsAndPanicsAreNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{})
	_, err := a.Do(t.Context(), a.q, func(context.Context) (Answer, error) { panic("in a store") })
	require.ErrorContains(t, err, "panic: in a store")
	_, err = a.Do(t.Context(), a.q, func(context.Context) (Answer, error) { return Answer{}, store.ErrNotFound })
	require.ErrorIs(t, err, store.ErrNotFound)
	a.sees("nothing", 1)
}

func TestWhatAProjectionHasYetToDoIsNotTakenForDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, store.Routes{things: {record.Tables}, others: {record.Tables}})
	a := w.asker(w.redis, Source{Collections: []syntax.NSID{things}, Projection: record.Tables})
	outbox := store.NewOutbox(w.db.Pool)
	carryOut := func() {
		rows, err := outbox.Claim(t.Context(), record.Tables, 100, time.Hour)
		require.NoError(t, err)
		require.NoError(t, outbox.Done(t.Context(), record.Tables, rows))
	}
	w.set(things, "one")
	a.sees("one", 1)
	a.sees("one", 2) // the projection may not have shown it
	carryOut()
	w.set(others, "anything") // of another collection
	a.sees("one", 3)
	a.settle()
	a.sees("one", 3)
	w.set(things, "two")
	a.sees("two", 4)
	require.NoError(t, outbox.EnqueueCollections(t.Context(), record.Tables, []syntax.NSID{others}))
	carryOut()
	carryOut()
	a.sees("two", 5)
	require.Eventually(t, func() bool { return a.label() == w.versions().Clock-1 || a.label() == w.versions().Clock }, patience, time.Millisecond)
	a.sees("two", 5)
}

// TestSearchIsBelievedAfterItsRefresh has a projection that shows later what it has.
func TestSearchIsBelievedAfterItsRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker(w.redis, Source{Collections: []syntax.NSID{things}, Projection: record.Search})
	now := time.Now()
	a.settled.now = func() time.Time { return now }
	a.sees("nothing", 1)
	now = now.Add(visibleAfter[record.Search] - time.Millisecond)
	a.sees("nothing", 2)
	require.Zero(t, a.label(), "what was written just before the first look may not be seen yet")
	now = now.Add(time.Millisecond)
	a.sees("nothing", 3)
	a.settle()
	a.sees("nothing", 3)
	w.set(things, "one")
	a.sees("one", 4)
	a.sees("one", 5)
	now = now.Add(visibleAfter[record.Search])
	a.sees("one", 6)
	require.Eventually(t, func() bool { return a.label() == w.versions().Clock }, patience, time.Millisecond)
	a.sees("one", 6)
}
