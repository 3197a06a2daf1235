package store_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// held waits for a lock in the background.
func held(t *testing.T, w *store.Writer) <-chan (<-chan struct{}) {
	t.Helper()
	done := make(chan (<-chan struct{}), 1)
	go func() {
		release, lost, err := w.Lock(context.Background())
		if err != nil {
			t.Errorf("lock: %v", err)
			close(done)
			return
		}
		t.Cleanup(release)
		done <- lost
	}()
	return done
}

func batchTo(host string, cursor int64) store.Batch {
	return store.Batch{Host: host, Cursor: cursor, Changes: []store.Change{put(key(alice, expressions, "one"), int(cursor))}}
}

func TestASecondWriterTakesOverWhenTheFirstOnesConnectionDies(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	first, second := store.NewWriter(db.Pool, routes, silent), store.NewWriter(db.Pool, routes, silent)
	require.ErrorIs(t, first.Apply(t.Context(), batchTo("relay.test", 1)), store.ErrLockLost, "without the lock nothing is written")

	release, lost, err := first.Lock(t.Context())
	require.NoError(t, err)
	defer release()
	require.NoError(t, first.Apply(t.Context(), batchTo("relay.test", 1)))

	waiting := held(t, second)
	select {
	case <-waiting:
		t.Fatal("two writers hold the lock")
	case <-time.After(3 * time.Second): // several tries
	}
	require.ErrorIs(t, second.Apply(t.Context(), batchTo("relay.test", 5)), store.ErrLockLost)

	var killed bool
	require.NoError(t, db.Pool.QueryRow(t.Context(), `
		SELECT bool_and(pg_terminate_backend(pid)) FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&killed))
	require.True(t, killed)

	<-lost
	<-waiting
	require.ErrorIs(t, first.Apply(t.Context(), batchTo("relay.test", 9)), store.ErrLockLost)
	require.NoError(t, second.Apply(t.Context(), batchTo("relay.test", 2)))
	seq, _, err := second.Cursor(t.Context(), "relay.test")
	require.NoError(t, err)
	require.EqualValues(t, 2, seq, "the first writer's last batch is not there")
}

func TestAWriterWhoseConnectionDiesInATransactionCommitsNothing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	w := store.NewWriter(db.Pool, routes, silent)
	release, lost, err := w.Lock(t.Context())
	require.NoError(t, err)
	defer release()

	// Another transaction holds the row that every batch updates, so the batch waits.
	blocker, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer blocker.Rollback(context.Background())
	_, err = blocker.Exec(t.Context(), "SELECT FROM clock FOR UPDATE")
	require.NoError(t, err)
	applied := make(chan error, 1)
	go func() { applied <- w.Apply(context.Background(), batchTo("relay.test", 1)) }()
	require.Eventually(t, func() bool {
		var killed bool
		err := db.Pool.QueryRow(t.Context(), `
			SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&killed)
		return err == nil && killed
	}, time.Minute, 10*time.Millisecond)

	require.ErrorIs(t, <-applied, store.ErrLockLost)
	<-lost
	_, ok, err := w.Cursor(t.Context(), "relay.test")
	require.NoError(t, err)
	require.False(t, ok)
}

func TestATimeoutDoesNotLoseTheLock(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	w := db.Writer(t, routes)
	blocker, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer blocker.Rollback(context.Background())
	_, err = blocker.Exec(t.Context(), "SELECT FROM clock FOR UPDATE")
	require.NoError(t, err)

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = w.Apply(short, batchTo("relay.test", 1))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, store.ErrLockLost)

	require.NoError(t, blocker.Rollback(t.Context()))
	require.NoError(t, w.Apply(t.Context(), batchTo("relay.test", 1)), "the batch is repeated")
}

func TestReleaseLetsTheNextWriterIn(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	first, second := store.NewWriter(db.Pool, routes, silent), store.NewWriter(db.Pool, routes, silent)
	release, lost, err := first.Lock(t.Context())
	require.NoError(t, err)
	waiting := held(t, second)
	release()
	release() // harmless
	<-waiting
	require.ErrorIs(t, first.Apply(t.Context(), batchTo("relay.test", 1)), store.ErrLockLost)
	select {
	case <-lost:
		t.Fatal("what was given back is not lost")
	default:
	}
}

func TestWaitingForTheLockEndsWithItsContext(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	db.Writer(t, routes)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := store.NewWriter(db.Pool, routes, silent).Lock(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestTheLockIsWaitedForThroughAnOutage(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	admin := connect(t, db.URL)
	forbid := func(allow string) {
		_, err := admin.Exec(t.Context(), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT "+allow+"', current_database()); END $$")
		require.NoError(t, err)
	}
	login := storetest.Login(t, db.URL)
	u, err := url.Parse(login)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "GRANT ALL ON ALL TABLES IN SCHEMA public TO "+u.User.Username())
	require.NoError(t, err)
	pool, err := store.Open(t.Context(), store.Config{URL: login})
	require.NoError(t, err)
	defer pool.Close()

	forbid("0") // superusers are let in all the same
	waiting := held(t, store.NewWriter(pool, routes, silent))
	select {
	case <-waiting:
		t.Fatal("got the lock, or gave up")
	case <-time.After(2 * time.Second):
	}
	forbid("-1")
	require.NotNil(t, <-waiting)
}

func TestRoutesOfTheWriterAreThoseOfTheOutbox(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	outbox := store.NewOutbox(db.Pool)
	lead := func(routes store.Routes, changes ...store.Change) {
		w := store.NewWriter(db.Pool, routes, silent)
		release, _, err := w.Lock(t.Context())
		require.NoError(t, err)
		defer release()
		require.NoError(t, w.Apply(t.Context(), store.Batch{Changes: changes}))
	}
	count := func(target record.Target) int {
		rows, err := outbox.Claim(t.Context(), target, 100, 0)
		require.NoError(t, err)
		return len(rows)
	}
	lead(store.Routes{expressions: {record.Search}}, put(key(alice, expressions, "one"), 1), put(key(alice, layers, "one"), 1))
	require.Equal(t, 1, count(record.Search))
	require.Zero(t, count(record.Graph))

	lead(store.Routes{expressions: {record.Graph}, layers: {record.Graph}})
	require.Zero(t, count(record.Search), "the rows of a projection that is gone are gone")
	require.Equal(t, 2, count(record.Graph), "a projection that is new is given what there is")

	lead(store.Routes{expressions: {record.Graph}, layers: {record.Graph}})
	require.Equal(t, 2, count(record.Graph), "the same routes again enqueue nothing")
}
