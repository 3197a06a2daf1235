package store_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

func (w *world) incomplete(since time.Time, dids ...syntax.DID) []syntax.DID {
	w.t.Helper()
	list, err := w.resyncs().Incomplete(w.t.Context(), dids, since)
	require.NoError(w.t, err)
	return list
}

func (w *world) completed(within time.Duration) int {
	w.t.Helper()
	n, err := w.resyncs().Completed(w.t.Context(), within)
	require.NoError(w.t, err)
	return n
}

// now is the time of the server, by which all times of rows are.
func (w *world) now() (at time.Time) {
	w.t.Helper()
	require.NoError(w.t, w.Pool.QueryRow(w.t.Context(), "SELECT clock_timestamp()").Scan(&at))
	return at
}

func TestIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ever := time.Unix(0, 0)
	unknown := syntax.DID("did:plc:unknown")
	require.Equal(t, []syntax.DID{alice, unknown}, w.incomplete(ever, unknown, alice))

	whole := store.RepoUpdate{DID: alice, Sync: pointer(store.Synchronized), Complete: pointer(true)}
	half := store.RepoUpdate{DID: bob, Sync: pointer(store.Synchronized), Complete: pointer(false)}
	w.update("", whole, half)
	require.Equal(t, []syntax.DID{bob}, w.incomplete(ever, alice, bob))
	require.Equal(t, 1, w.completed(time.Hour))
	require.Zero(t, w.completed(0))

	later := w.now()
	w.update("", store.RepoUpdate{DID: alice, Rev: pointer(syntax.TID("3kaaaaaaaaa2a"))})
	require.Equal(t, []syntax.DID{alice}, w.incomplete(later, alice), "a commit makes it no more whole than it was")
	w.update("", whole)
	require.Empty(t, w.incomplete(later, alice))

	w.add(store.Wanted{DID: bob})
	require.Empty(t, w.incomplete(ever, bob), "it waits already")
	w.update("", w.state(alice, store.Desynchronized))
	require.NoError(t, w.resyncs().Remove(t.Context(), alice))
	require.Equal(t, []syntax.DID{alice}, w.incomplete(ever, alice))
	w.update("", store.RepoUpdate{DID: alice, Active: pointer(false), Status: pointer(store.StatusDeleted)})
	require.NoError(t, w.resyncs().Remove(t.Context(), alice))
	require.Empty(t, w.incomplete(ever, alice), "there is nothing to fetch of a deleted account")
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(store.Wanted{DID: alice}, store.Wanted{DID: bob})
	w.postpone(bob, time.Hour)
	list, err := w.resyncs().Waiting(t.Context(), []syntax.DID{alice, bob, "did:plc:unknown"})
	require.NoError(t, err)
	require.Equal(t, 0, list[alice].Failed)
	require.Equal(t, 1, list[bob].Failed)
	require.Equal(t, "pds.test", list[bob].Host)
	require.Contains(t, list[bob].Cause, "it said no")
	require.Len(t, list, 2)
}

func TestHasWriter(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	led := func() bool {
		led, err := store.NewResyncs(db.Pool).HasWriter(t.Context())
		require.NoError(t, err)
		return led
	}
	require.False(t, led())
	release, _, err := store.NewWriter(db.Pool, nil, slog.New(slog.DiscardHandler)).Lock(t.Context())
	require.NoError(t, err)
	require.True(t, led())
	release()
	require.Eventually(t, func() bool { return !led() }, time.Minute, 10*time.Millisecond)
}
