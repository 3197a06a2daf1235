package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// TestAbandonedQueryEndsInTheServer holds a list up, in the server, and ends its
// context: the server must stop working on it, and the connection go on to be used.
func TestAbandonedQueryEndsInTheServer(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, store.Partition{Collection: "com.example.thing"})
	pool, err := store.Open(t.Context(), store.Config{URL: db.URL, MaxConns: 1, ReadOnly: true, Name: "abandoned"})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	var before int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&before))

	holder, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = holder.Rollback(context.Background()) })
	_, err = holder.Exec(t.Context(), "LOCK TABLE repos IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	working := func() (n int) {
		require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'", before).Scan(&n))
		return n
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := store.NewReader(pool).List(ctx, store.Query{Collection: "com.example.thing", Limit: 10})
		asked <- err
	}()
	require.Eventually(t, func() bool { return working() == 1 }, time.Minute, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-asked, context.Canceled)
	require.Eventually(t, func() bool { return working() == 0 }, time.Minute, 5*time.Millisecond, "the server goes on")

	require.NoError(t, holder.Rollback(t.Context()))
	var after int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&after))
	require.Equal(t, before, after, "the connection was given up")
}

// TestStatementTimeEndsWhatNobodyCancels asks without a deadline.
func TestStatementTimeEndsWhatNobodyCancels(t *testing.T) {
	t.Parallel()
	pool, err := store.Open(t.Context(), store.Config{URL: storetest.Empty(t), MaxConns: 1, StatementTime: 20 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), "SELECT pg_sleep(600)")
	var refusal *pgconn.PgError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "57014", refusal.Code)
}
