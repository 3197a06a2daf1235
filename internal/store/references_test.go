package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestWhatRecordsReferTo reads references from the side that has them. Two records have
// one key in two collections and a target in common.
func TestWhatRecordsReferTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const carol, dave, erin = "at://did:plc:carol", "at://did:plc:dave", "at://did:plc:erin"
	one, twin, none := key(alice, expressions, "one"), key(alice, posts, "one"), key(bob, expressions, "none")
	refer := func(c store.Change, refs ...record.Ref) store.Change {
		c.Refs = refs
		return c
	}
	both := []record.Ref{{Path: "a", Target: carol}, {Path: "b", Target: dave}, {Path: "c", Target: carol}}
	w.apply(refer(put(one, 1), both...), refer(put(twin, 2), record.Ref{Path: "z", Target: carol}), put(none, 3))

	forward := func(of record.Key, limit int) (names []string) {
		t.Helper()
		query := store.ReferenceQuery{Source: &of, Limit: limit}
		for {
			page, more, err := w.reader.References(t.Context(), query)
			require.NoError(t, err)
			for _, r := range page {
				require.Equal(t, of, r.Source)
				names = append(names, r.Path+" "+r.Target)
			}
			if !more {
				return names
			}
			query.After = &page[len(page)-1]
		}
	}
	all := []string{"a " + carol, "b " + dave, "c " + carol}
	for limit := range 4 {
		require.Equal(t, all, forward(one, limit+1), limit)
	}
	require.Equal(t, []string{"z " + carol}, forward(twin, 5))
	require.Empty(t, forward(none, 5))

	found, err := w.reader.Targets(t.Context(), []record.Key{twin, none, one}, nil, 10)
	require.NoError(t, err)
	require.Equal(t, []store.Reference{
		{Source: twin, Path: "z", Target: carol},
		{Source: one, Path: "a", Target: carol}, {Source: one, Path: "b", Target: dave}, {Source: one, Path: "c", Target: carol},
	}, found)
	joined, err := w.reader.Joined(t.Context(), expressions, "a", carol, "b", 10)
	require.NoError(t, err)
	require.Equal(t, []string{dave}, joined)
	joined, err = w.reader.Joined(t.Context(), posts, "z", carol, "a", 10)
	require.NoError(t, err)
	require.Empty(t, joined, "that is its twin's")

	w.apply(refer(put(one, 4), record.Ref{Path: "b", Target: erin}), remove(none, 5))
	require.Equal(t, []string{"b " + erin}, forward(one, 5))
	require.Equal(t, []string{"z " + carol}, forward(twin, 5), "what its twin referred to is gone, not this")
	w.apply(remove(one, 6))
	require.Empty(t, forward(one, 5))
	require.Equal(t, []string{"z " + carol}, w.texts("SELECT path || ' ' || target FROM refs"))
}
