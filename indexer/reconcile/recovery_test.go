package reconcile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestProjectionsAheadOfARestoredDatabase gives projections what a database has lost:
// other content under a higher version. It is found, before the clock has gone on and
// after, and mended.
func TestProjectionsAheadOfARestoredDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	expressions := w.of(expressionType)
	history, err := w.stores.Records.History(ctx)
	require.NoError(t, err)
	lost := history.Clock + 50
	require.NoError(t, w.stores.Search.Write(ctx, []search.Document{
		{Key: expressions[0], Version: lost, IndexedAt: time.Now(), Body: []byte(`{}`)},
		{Key: expressions[2], Version: lost}, // deleted there
	}))
	require.NoError(t, w.stores.Graph.Write(ctx, []graph.Subgraph{{Key: expressions[1], Version: lost}}))
	want := map[record.Target]map[record.Key]Kind{
		record.Search: {expressions[0]: Ahead, expressions[2]: Missing}, record.Graph: {expressions[1]: Ahead},
	}
	require.Equal(t, want, seen(w.run(Options{})))

	_, err = store.Recover(ctx, w.db.Pool, "a test")
	require.NoError(t, err)
	report := w.run(Options{Repair: true})
	require.Equal(t, want, seen(report))
	require.EqualValues(t, 3, report.Enqueued)
	report = w.run(Options{Wait: time.Minute, Deep: true})
	require.True(t, report.Clean(), "%v", report.Differences)
}
