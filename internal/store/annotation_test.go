package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
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

// TestNothingStaysOfADeletedAccountsLayers deletes an account that has a layer, one
// that was deleted before, and one whose writer comes late.
func TestNothingStaysOfADeletedAccountsLayers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tables := store.NewTables(w.Pool)
	replace := func(list ...store.Layer) { require.NoError(t, tables.ReplaceAnnotations(t.Context(), list)) }
	rows := func() []string {
		return w.texts(`SELECT did || ' ' || rkey FROM annotation_layers UNION ALL SELECT DISTINCT did || ' ' || rkey || ' annotation' FROM annotations ORDER BY 1`)
	}
	there, gone, late, others := key(alice, layers, "there"), key(alice, layers, "gone"), key(alice, layers, "late"), key(bob, layers, "there")
	write := func(k record.Key, version int64) store.Layer {
		return store.Layer{Key: k, Version: version, Rows: labelled(k, "new", 2)}
	}
	replace(write(there, 3), write(others, 3), store.Layer{Key: gone, Version: 4, Deleted: true})
	require.Len(t, rows(), 5)

	// A writer that has not seen the account go waits on its way; the layer's removal
	// comes behind it.
	tx, err := w.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO annotation_layers (collection, did, rkey, version, count, deleted) VALUES ($1, $2, $3, 3, 1, false)",
		late.Collection, late.DID, late.Rkey)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO annotations (collection, did, rkey, ordinal, uuid, label, value, text, anchor_kind) VALUES ($1, $2, $3, 0, '', '', '', '', '')",
		late.Collection, late.DID, late.Rkey)
	require.NoError(t, err)
	w.update("relay.test", store.RepoUpdate{DID: alice, Active: pointer(false), Status: pointer(store.StatusDeleted), Seq: pointer(int64(5))})
	var group errgroup.Group
	group.Go(func() error {
		return tables.ReplaceAnnotations(t.Context(), []store.Layer{{Key: late, Version: 6, Deleted: true}})
	})
	require.Eventually(t, func() bool { return w.locked() > 0 }, time.Minute, 10*time.Millisecond, "the removal does not wait")
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, group.Wait())
	replace(store.Layer{Key: there, Version: 6, Deleted: true})
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Purge: []syntax.DID{alice}}))
	left := []string{string(bob) + " there", string(bob) + " there annotation"}
	require.Equal(t, left, rows())

	replace(write(there, 3), write(gone, 3), write(others, 7))
	require.Equal(t, left, rows(), "written late")
	replace(store.Layer{Key: late, Version: 6, Deleted: true})
	require.Equal(t, left, rows(), "removed again")

	w.update("relay.test", store.RepoUpdate{DID: alice, Active: pointer(true), Status: pointer("active"), Seq: pointer(int64(9))})
	replace(write(there, 9))
	require.Len(t, rows(), 4, "the account is back")
}
