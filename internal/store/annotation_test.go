package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// labelled makes annotations with a label, in reverse.
func labelled(layer record.Key, label string, n int) []record.Annotation {
	var rows []record.Annotation
	for i := n - 1; i >= 0; i-- {
		rows = append(rows, record.Annotation{Layer: layer, Ordinal: i, Label: label})
	}
	return rows
}

func TestAnnotationsAreReplacedUnlessANewerVersionIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tables := store.NewTables(w.Pool)
	one, two := key(alice, layers, "one"), key(alice, layers, "two")
	replace := func(list ...store.Layer) { require.NoError(t, tables.ReplaceAnnotations(t.Context(), list)) }
	labels := func(k record.Key) (got []string) {
		rows, err := w.reader.Annotations(t.Context(), k)
		require.NoError(t, err)
		for i, a := range rows {
			require.Equal(t, i, a.Ordinal)
			got = append(got, a.Label)
		}
		return got
	}
	replace(store.Layer{Key: two, Version: 3, Rows: labelled(two, "new", 2)}, store.Layer{Key: one, Version: 3, Rows: labelled(one, "new", 2)})
	require.Equal(t, []string{"new", "new"}, labels(one))

	replace(store.Layer{Key: one, Version: 2, Rows: labelled(one, "old", 3)}, store.Layer{Key: two, Version: 4, Rows: labelled(two, "newer", 1)})
	require.Equal(t, []string{"new", "new"}, labels(one), "late")
	require.Equal(t, []string{"newer"}, labels(two))

	replace(store.Layer{Key: one, Version: 3, Rows: labelled(one, "again", 1)})
	require.Equal(t, []string{"again"}, labels(one), "the same version is written again")

	replace(store.Layer{Key: one, Version: 5, Deleted: true})
	require.Empty(t, labels(one))
	replace(store.Layer{Key: one, Version: 4, Rows: labelled(one, "late", 1)})
	require.Empty(t, labels(one), "late after the delete")
	states, err := tables.ScanLayers(t.Context(), record.Key{}, 10)
	require.NoError(t, err)
	require.Equal(t, []store.LayerState{{Key: two, Version: 4, Count: 1}}, states)

	replace(store.Layer{Key: one, Version: 6, Rows: labelled(one, "back", 1)}, store.Layer{Key: two, Version: 6})
	require.Equal(t, []string{"back"}, labels(one))
	states, err = tables.ScanLayers(t.Context(), record.Key{}, 1)
	require.NoError(t, err)
	require.Equal(t, []store.LayerState{{Key: one, Version: 6, Count: 1}}, states)
	states, err = tables.ScanLayers(t.Context(), states[0].Key, 1)
	require.NoError(t, err)
	require.Equal(t, []store.LayerState{{Key: two, Version: 6, Count: 0}}, states, "a layer without annotations is there")
	replace()
}

func TestAnnotationsKeepWhatTheyHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, layers, "one")
	full := record.Annotation{
		Layer: k, Ordinal: 0, UUID: "u", Label: "NN", Value: random(20_000), Text: "a\uFFFDb", AnchorKind: "textSpan",
		ByteStart: pointer(int64(0)), ByteEnd: pointer(int64(1 << 52)), TokenIndex: pointer(int64(3)), Confidence: pointer(int64(1000)),
	}
	given := full
	given.Text = "a\x00b"
	empty := record.Annotation{Layer: k, Ordinal: 1}
	require.NoError(t, store.NewTables(w.Pool).ReplaceAnnotations(t.Context(), []store.Layer{{Key: k, Version: 1, Rows: []record.Annotation{empty, given}}}))
	got, err := w.reader.Annotations(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, []record.Annotation{full, empty}, got)
}

func TestAVeryLargeLayer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, layers, "large")
	for version := range int64(2) {
		rows := labelled(k, fmt.Sprint("v", version), 50_000)
		require.NoError(t, store.NewTables(w.Pool).ReplaceAnnotations(t.Context(), []store.Layer{{Key: k, Version: version, Rows: rows}}))
	}
	require.Equal(t, []string{"v1 50000"}, w.texts("SELECT label || ' ' || count(*) FROM annotations GROUP BY label"))
}

func TestWorkersThatMeetTheSameLayersDoNotDeadlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tables := store.NewTables(w.Pool)
	var group errgroup.Group
	for worker := range 4 {
		group.Go(func() error {
			for version := range int64(10) {
				var batch []store.Layer
				for i := range 8 {
					k := key(alice, layers, fmt.Sprint((i*3+worker)%8)) // each worker in another order
					batch = append(batch, store.Layer{Key: k, Version: version, Rows: labelled(k, fmt.Sprint(version), int(version))})
				}
				if err := tables.ReplaceAnnotations(t.Context(), batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, []string{"9 72"}, w.texts("SELECT label || ' ' || count(*) FROM annotations GROUP BY label"))
}
