package statistics_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	alice       = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	expressions = syntax.NSID("pub.layers.expression.expression")
	patience    = time.Minute // on a machine that does much else
)

var silent = slog.New(slog.DiscardHandler)

func text(rkey, value string) store.Change {
	return store.Change{
		Action: record.Create, Key: record.Key{DID: alice, Collection: expressions, Rkey: syntax.RecordKey(rkey)}, Rev: syntax.NewTIDNow(0),
		CID: "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", JSON: []byte(`{"text":"` + value + `"}`),
	}
}

func write(t *testing.T, w *store.Writer, cursor int64, changes ...store.Change) {
	t.Helper()
	require.NoError(t, w.Apply(t.Context(), store.Batch{Host: "relay.test", Cursor: cursor, Changes: changes}))
}

func bytesOf(t *testing.T, r *statistics.Reader) int64 {
	t.Helper()
	c, _, err := r.Corpus(t.Context(), record.Key{})
	require.NoError(t, err)
	return c.Bytes
}

func TestRefreshesComeBySchedule(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	writer := db.Writer(t, nil)
	reader := statistics.NewReader(db.Pool)
	_, _, err := reader.Corpus(t.Context(), record.Key{})
	require.ErrorIs(t, err, statistics.ErrNone)
	write(t, writer, 1, text("a", "four"))

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 { // replicas
		go func() {
			ended <- statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), time.Second, silent).Run(ctx)
		}()
	}
	shows := func(want int64) {
		require.Eventually(t, func() bool {
			c, _, err := reader.Corpus(ctx, record.Key{})
			return err == nil && c.Bytes == want
		}, patience, 20*time.Millisecond)
	}
	shows(4)
	write(t, writer, 2, text("b", "eight..."))
	shows(12)
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
}

func TestOneRefreshAtATime(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	other, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), "LOCK TABLE statistics IN SHARE ROW EXCLUSIVE MODE") // as a refresh does
	require.NoError(t, err)
	demanded := make(chan error, 1)
	go func() {
		_, err := statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), 0, silent).Refresh(t.Context())
		demanded <- err
	}()
	require.Eventually(t, func() bool { // it waits for the other one
		var waiting bool
		err := db.Pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = to_regclass('statistics'))").Scan(&waiting)
		return err == nil && waiting
	}, patience, 10*time.Millisecond)
	state, err := statistics.NewReader(db.Pool).State(t.Context())
	require.NoError(t, err, "readers do not wait")
	require.Nil(t, state.RefreshedAt)
	require.NoError(t, other.Rollback(t.Context()))
	require.NoError(t, <-demanded)
	require.Zero(t, bytesOf(t, statistics.NewReader(db.Pool)))
}

// A refresh that fails leaves the figures before, says so, and is made good by the next.
func TestFailuresAreNoted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	writer := db.Writer(t, nil)
	refresher, reader := statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), 0, silent), statistics.NewReader(db.Pool)
	write(t, writer, 1, text("a", "four"))
	_, err := refresher.Refresh(t.Context())
	require.NoError(t, err)
	write(t, writer, 2, text("b", "eight..."))
	_, err = db.Pool.Exec(t.Context(), "ALTER MATERIALIZED VIEW graph_density RENAME TO elsewhere") // the last one
	require.NoError(t, err)
	_, err = refresher.Refresh(t.Context())
	require.ErrorContains(t, err, "graph_density")
	require.EqualValues(t, 4, bytesOf(t, reader), "all views are of one moment")
	state, err := reader.State(t.Context())
	require.NoError(t, err)
	require.NotNil(t, state.FailedAt)
	require.Contains(t, state.Error, "graph_density")

	_, err = db.Pool.Exec(t.Context(), "ALTER MATERIALIZED VIEW elsewhere RENAME TO graph_density")
	require.NoError(t, err)
	_, err = refresher.Refresh(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 12, bytesOf(t, reader))
	state, err = reader.State(t.Context())
	require.NoError(t, err)
	require.Nil(t, state.FailedAt)
	require.Positive(t, state.Took)
}

// Where other tables take the place of the served ones, the views are those of the new
// ones: empty at first, readable for whoever could read them before, and refreshed like any.
func TestViewsFollowASuccession(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := storetest.New(t)
	served := db.Writer(t, nil)
	write(t, served, 5, text("a", "four"))
	refresher := statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), 0, silent)
	_, err := refresher.Refresh(ctx)
	require.NoError(t, err)

	s, err := store.NewSuccession(ctx, db.Pool)
	require.NoError(t, err)
	_, err = s.Begin(ctx)
	require.NoError(t, err)
	address, err := store.NextURL(db.URL)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(ctx, address, nil, silent))
	require.NoError(t, s.Raise(ctx))
	pool, err := store.Open(ctx, store.Config{URL: address})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	next := store.NewWriter(pool, nil, silent)
	release, _, err := next.Lock(ctx)
	require.NoError(t, err)
	write(t, next, 6, text("a", "four"), text("b", "eight..."))
	_, err = pool.Exec(ctx, "UPDATE resyncs SET attempts = 1")
	require.NoError(t, err)
	release()
	strangers, err := s.Strangers(ctx)
	require.NoError(t, err)
	require.Empty(t, strangers)
	require.NoError(t, s.Switch(ctx))

	readonly, err := store.Open(ctx, store.Config{URL: db.URL, ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(readonly.Close)
	reader := statistics.NewReader(readonly)
	_, _, err = reader.Corpus(ctx, record.Key{})
	require.ErrorIs(t, err, statistics.ErrNone)
	_, err = refresher.Refresh(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 12, bytesOf(t, reader))
	require.NoError(t, s.Drop(ctx))
	layer := store.Layer{Key: record.Key{DID: alice, Collection: "pub.layers.annotation.annotationLayer", Rkey: "l"}, Version: 1, Rows: []record.Annotation{{Label: "x"}}}
	require.NoError(t, store.NewTables(db.Pool).ReplaceAnnotations(ctx, []store.Layer{layer}))
	_, err = refresher.Refresh(ctx)
	require.NoError(t, err, "beside readers, by the index that came along")
	require.EqualValues(t, 12, bytesOf(t, reader))
	var concurrent int
	require.NoError(t, db.Pool.QueryRow(ctx, `SELECT count(DISTINCT indrelid) FROM pg_index JOIN pg_class c ON c.oid = indrelid
		WHERE relkind = 'm' AND indisunique AND relnamespace = current_schema()::regnamespace`).Scan(&concurrent))
	require.Equal(t, 4, concurrent)
}

// Migrations go down although somebody has filled the views.
func TestViewsGoDown(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	_, err := statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), 0, silent).Refresh(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.MigrateDown(t.Context(), db.URL, 12))
	rows, err := db.Pool.Query(t.Context(), "SELECT relname FROM pg_class WHERE relkind = 'm'")
	require.NoError(t, err)
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Empty(t, left)
}
