package task

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// TestBreakerWaitsForTheStore runs on a clock of its own.
func TestBreakerWaitsForTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		away := errors.New("away")
		b := newBreaker(record.Search, func(context.Context) error {
			if asked.Add(1) < 5 {
				return away
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		go b.run(t.Context())
		stop := make(chan struct{})
		require.True(t, b.wait(t.Context(), stop), "it begins closed")

		b.trip(away)
		b.trip(away)
		ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.False(t, b.wait(ended, stop), "open, so only ctx ends the wait")
		require.True(t, b.wait(t.Context(), stop))
		require.EqualValues(t, 5, asked.Load(), "one asks for all, until there is an answer")

		b.trip(away)
		close(stop)
		require.False(t, b.wait(t.Context(), stop), "whoever stops does not wait")
	})
}

func TestBackoffGrowsWithinBounds(t *testing.T) {
	t.Parallel()
	for failures := range 50 {
		d := backoff(failures)
		require.GreaterOrEqual(t, d, min(firstPause<<min(failures, 7), longestPause)/2)
		require.LessOrEqual(t, d, longestPause)
	}
}
