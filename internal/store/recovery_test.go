package store_test

import (
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// history is what the world's database says of its past.
func (w *world) history() store.History {
	w.t.Helper()
	h, err := w.reader.History(w.t.Context())
	require.NoError(w.t, err)
	return h
}

// TestARestoredDatabaseGivesNothingOutTwice takes a database for one that was restored:
// what was given out before, and lost, is not given out again.
func TestARestoredDatabaseGivesNothingOutTwice(t *testing.T) {
	t.Parallel()
	db := storetest.New(t, partitions...)
	routes := store.Routes{expressions: {record.Search}}
	w := &world{Database: db, t: t, reader: store.NewReader(db.Pool), outbox: store.NewOutbox(db.Pool), writer: store.NewWriter(db.Pool, routes, silent)}
	lock := func() (release func()) {
		release, _, err := w.writer.Lock(t.Context())
		require.NoError(t, err)
		return release
	}
	release := lock()
	w.apply(put(key(alice, expressions, "kept"), 1))
	kept := w.history()
	require.Empty(t, kept.Recoveries, "the first writer has nothing to compare with")
	release()
	release = lock()
	require.Equal(t, kept, w.history(), "nor has one that finds everything as it was")

	pending, err := w.outbox.Claim(t.Context(), record.Search, 10, time.Minute)
	require.NoError(t, err)
	require.Len(t, pending, 1)
	release()
	_, err = w.Pool.Exec(t.Context(), "UPDATE lineage SET timeline = '00000000'") // as the backup of another timeline has it
	require.NoError(t, err)

	defer lock()()
	h := w.history()
	require.Len(t, h.Recoveries, 1)
	r := h.Recoveries[0]
	require.Equal(t, kept.Clock, r.Reached)
	require.Contains(t, r.Reason, "before it")
	require.Equal(t, h.Clock, r.Resumed)
	require.True(t, h.Knows(r.Reached) && h.Knows(r.Resumed))
	require.False(t, h.Knows(r.Reached+1) || h.Knows(r.Resumed-1) || h.Knows(h.Clock+1))

	w.apply(put(key(alice, expressions, "new"), 2))
	got, err := w.reader.Get(t.Context(), key(alice, expressions, "new"))
	require.NoError(t, err)
	require.Greater(t, got.Version, r.Resumed)
	later, err := w.outbox.Claim(t.Context(), record.Search, 10, time.Minute)
	require.NoError(t, err)
	require.Len(t, later, 1)
	require.Greater(t, later[0].ID, pending[0].ID+1<<30, "a task that names a lost row deletes no other")

	versions, err := store.NewChanges(w.Pool).Versions(t.Context())
	require.NoError(t, err)
	require.True(t, versions.Changed(r.Reached+5, []syntax.NSID{layers}), "an answer of the lost history is not given again")
	require.True(t, versions.Changed(r.Reached, []syntax.NSID{layers}))
}

// TestWhoHasSeenLostEventsIsTold reads the log of events after a recovery.
func TestWhoHasSeenLostEventsIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "kept"), 1))
	r, err := store.Recover(t.Context(), w.Pool, "a test")
	require.NoError(t, err)
	w.apply(put(key(alice, expressions, "new"), 2))

	page, err := w.reader.Events(t.Context(), r.Reached)
	require.NoError(t, err)
	require.LessOrEqual(t, page.Since, r.Reached, "who has seen nothing that was lost goes on")
	require.Len(t, page.Events, 1)

	for _, lost := range []int64{r.Reached + 1, r.Resumed - 1} {
		page, err = w.reader.Events(t.Context(), lost)
		require.NoError(t, err)
		require.Equal(t, r.Resumed, page.Since, "who has is outdated, and goes on where the history does")
	}
	page, err = w.reader.Events(t.Context(), r.Resumed)
	require.NoError(t, err)
	require.LessOrEqual(t, page.Since, r.Resumed)
	require.Len(t, page.Events, 1)
}

// TestNextTablesKnowWhatWasLost switches to tables that were filled anew.
func TestNextTablesKnowWhatWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, err := store.Recover(t.Context(), w.Pool, "a test")
	require.NoError(t, err)
	h := w.heirs()
	h.apply(t, 1, put(key(alice, expressions, "one"), 1))
	_, err = w.Pool.Exec(t.Context(), "UPDATE layers_next.resyncs SET attempts = 1") // tried, in vain
	require.NoError(t, err)
	require.NoError(t, h.Switch(t.Context()))
	require.False(t, w.history().Knows(r.Reached+1))
}
