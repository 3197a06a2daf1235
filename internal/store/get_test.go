package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestGetsTogether asks for many records at once: each caller gets its own, or is
// told that it is not there, whatever went to PostgreSQL along with it.
func TestGetsTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for i := range 100 {
		changes = append(changes, put(key(alice, expressions, fmt.Sprint("e", i)), i+1), put(key(bob, posts, fmt.Sprint("p", i)), i+1))
	}
	w.apply(changes...)
	var asking sync.WaitGroup
	for i := range 100 {
		asking.Go(func() {
			for _, key := range []record.Key{key(alice, expressions, fmt.Sprint("e", i)), key(bob, posts, fmt.Sprint("p", i))} {
				found, err := w.reader.Get(t.Context(), key)
				if err != nil || found.Key != key || found.Rev != rev(i+1) {
					t.Errorf("%s: got %s at %s, %v", key, found.Key, found.Rev, err)
				}
			}
			_, err := w.reader.Get(t.Context(), key(bob, expressions, fmt.Sprint("e", i)))
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("expected ErrNotFound, got %v", err)
			}
		})
	}
	asking.Wait()
}

// TestAStuckGetHoldsUpNoOther has PostgreSQL keep one question waiting, asks others, and
// then lets go: those that had gathered behind the lock are answered together.
func TestAStuckGetHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stuck, other := key(alice, expressions, "stuck"), key(bob, layers, "other")
	w.apply(put(stuck, 1), put(other, 2))
	_, err := w.reader.Get(t.Context(), other) // the reader knows its partitions from now on
	require.NoError(t, err)
	release := w.lock(expressions)

	const together = 64
	answers := make(chan error, together)
	ask := func() {
		found, err := w.reader.Get(t.Context(), stuck)
		if err == nil && found.Key != stuck {
			err = fmt.Errorf("got %s", found.Key)
		}
		answers <- err
	}
	go ask()
	require.Eventually(t, func() bool { return w.locked() == 1 }, time.Minute, time.Millisecond)
	for range 10 {
		_, err := w.reader.Get(t.Context(), other)
		require.NoError(t, err)
	}
	require.Equal(t, 1, w.locked(), "the question is no longer kept waiting")
	for range together - 1 {
		go ask()
	}
	require.Empty(t, answers, "the lock kept nothing back")
	release()
	for range together {
		require.NoError(t, <-answers)
	}
}

// lock keeps everybody from a collection until it is released.
func (w *world) lock(collection syntax.NSID) (release func()) {
	w.t.Helper()
	var table string
	require.NoError(w.t, w.Pool.QueryRow(w.t.Context(), "SELECT name FROM partitions WHERE collection = $1", collection).Scan(&table))
	tx, err := w.Pool.Begin(w.t.Context())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	_, err = tx.Exec(w.t.Context(), "LOCK TABLE "+pgx.Identifier{table}.Sanitize()+" IN ACCESS EXCLUSIVE MODE")
	require.NoError(w.t, err)
	return func() { require.NoError(w.t, tx.Rollback(w.t.Context())) }
}

// TestOneBadGetSpoilsNoOther sends a key that PostgreSQL refuses along with good ones.
func TestOneBadGetSpoilsNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := key(alice, expressions, "good")
	w.apply(put(good, 1))
	var asking sync.WaitGroup
	for i := range 64 {
		asking.Go(func() {
			if i%2 == 0 {
				if _, err := w.reader.Get(t.Context(), good); err != nil {
					t.Errorf("good: %v", err)
				}
			} else if _, err := w.reader.Get(t.Context(), key(alice, expressions, "\x00")); err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("bad: expected PostgreSQL's refusal, got %v", err)
			}
		})
	}
	asking.Wait()
}

// TestAGetThatIsGivenUpReturnsAtOnce, and leaves the others theirs.
func TestAGetThatIsGivenUpReturnsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "a"), 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.reader.Get(ctx, key(alice, expressions, "a"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = w.reader.Get(t.Context(), key(alice, expressions, "a"))
	require.NoError(t, err)
}
