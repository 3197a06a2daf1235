package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// many are changes that make a large batch.
func many(n int) []store.Change {
	changes := make([]store.Change, n)
	for i := range changes {
		changes[i] = put(key(alice, expressions, fmt.Sprintf("r%03d", i)), 1)
	}
	return changes
}

const (
	packedRows = "SELECT target || ' ' || packed - taken FROM sweeps WHERE packed > 0 ORDER BY target, id"
	singleRows = "SELECT target || ' ' || count(*) FROM outbox GROUP BY target ORDER BY target"
)

func TestTheRowsOfALargeBatchArePackedAndClaimedInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	changes := many(250)
	w.apply(changes...)
	require.Equal(t, []string{"graph 250", "search 250"}, w.texts(packedRows))
	require.Empty(t, w.texts(singleRows))
	require.EqualValues(t, 250, w.depth(record.Search).Rows)
	require.Zero(t, w.depth(record.Search).Sweeps)
	require.False(t, w.depth(record.Search).Empty())

	first := w.claim(record.Search, 100, lease)
	require.Len(t, first, 100)
	require.Equal(t, []string{"graph 250", "search 150"}, w.texts(packedRows))
	require.Equal(t, []string{"search 100"}, w.texts(singleRows))
	require.EqualValues(t, 250, w.depth(record.Search).Rows, "claimed is not done")

	w.apply(put(key(bob, expressions, "later"), 1))
	second := w.claim(record.Search, 200, lease)
	require.Len(t, second, 151, "all that is left, and what came by itself")
	require.Empty(t, w.claim(record.Search, 100, lease))
	versions := map[record.Key]int64{}
	for i, p := range append(first, second...) {
		require.NotContains(t, versions, p.Key)
		versions[p.Key] = p.Version
		if i < 100 {
			require.Equal(t, changes[i].Key, p.Key, "in the order of the stream")
		}
	}
	for _, c := range changes {
		found, err := w.reader.Get(t.Context(), c.Key)
		require.NoError(t, err)
		require.Equal(t, found.Version, versions[c.Key])
	}
	require.NoError(t, w.outbox.Done(t.Context(), record.Search, append(first, second...)))
	require.True(t, w.depth(record.Search).Empty())
	require.Equal(t, []string{"graph 250"}, w.texts(packedRows))
}

func TestPackedRowsComeBackWhenTheirLeaseRunsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(many(120)...)
	run := w.claim(record.Search, 50, -1) // has run out at once
	require.Len(t, run, 50)
	require.Equal(t, run, w.claim(record.Search, 50, lease), "before those that nobody has had")
	require.Len(t, w.claim(record.Search, 100, lease), 70)
}

func TestManyWorkersUnpackEachRowOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for rev := range 4 {
		changes := many(150)
		for i := range changes {
			changes[i] = put(changes[i].Key, rev+1)
		}
		w.apply(changes...)
	}
	times := w.carriedOut()
	require.Len(t, times, 150)
	for k, n := range times {
		require.Equal(t, 4, n, "%s: once for each change", k)
	}
}

func TestPackedRowsCountAgainstTheBoundOfTheOutbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	exceeds := func(rows int64) bool {
		yes, err := w.outbox.Exceeds(t.Context(), rows)
		require.NoError(t, err)
		return yes
	}
	w.apply(many(150)...) // two rows each
	require.True(t, exceeds(299))
	require.False(t, exceeds(300))
	rows := w.claim(record.Search, 70, lease)
	require.True(t, exceeds(299), "some are packed, some not")
	require.False(t, exceeds(300))
	require.NoError(t, w.outbox.Done(t.Context(), record.Search, rows))
	require.True(t, exceeds(229))
	require.False(t, exceeds(230))
}

func TestAProjectionThatIsBuiltAnewHasPackedTwins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rebuilds := store.NewRebuilds(w.Pool)
	require.NoError(t, rebuilds.Begin(t.Context(), record.Search, "next", 0))
	w.apply(many(130)...)
	require.Equal(t, []string{"graph 130", "search 130", "search+ 130"}, w.texts(packedRows))
	require.Len(t, w.claim(store.Twin(record.Search), 1000, lease), 130)
	require.NoError(t, rebuilds.Forget(t.Context(), record.Search))
	require.Equal(t, []string{"graph 130", "search 130"}, w.texts(packedRows))
	require.Empty(t, w.texts(singleRows))
}

// TestPackedRowsOutliveAMigration goes back to tables that know no packed rows.
func TestPackedRowsOutliveAMigration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(many(110)...)
	w.claim(record.Search, 10, lease)
	require.NoError(t, store.MigrateDown(t.Context(), w.URL, 19))
	require.Equal(t, []string{"graph 110", "search 110"}, w.texts(singleRows))
	require.NoError(t, store.Migrate(t.Context(), w.URL, partitions, silent))
	require.Len(t, w.claim(record.Search, 1000, lease), 100)
	require.Len(t, w.claim(record.Graph, 1000, lease), 110)
}
