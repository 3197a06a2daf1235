package indexer

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheWindowIsBoundedInFramesAndBytes(t *testing.T) {
	t.Parallel()
	full := func(w *window, size int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, w.enter(ctx, size), context.Canceled)
	}
	frames := newWindow(4, 1<<20)
	for i := range 4 {
		require.Equal(t, i > 2, frames.crowded(), "with %d of 4", i)
		require.NoError(t, frames.enter(t.Context(), 10))
	}
	full(frames, 10)

	bytes := newWindow(100, 10_000)
	require.NoError(t, bytes.enter(t.Context(), 4000))
	require.False(t, bytes.crowded())
	require.NoError(t, bytes.enter(t.Context(), 4000))
	require.True(t, bytes.crowded())
	full(bytes, 4000)
	bytes.leave(4000)
	bytes.leave(4000)
	require.NoError(t, bytes.drained(t.Context()))
	require.NoError(t, bytes.enter(t.Context(), 1_000_000), "a frame larger than the window has it for itself")
	full(bytes, 1)
	bytes.leave(1_000_000)
	require.NoError(t, bytes.drained(t.Context()))
}
