package task

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// TestYieldingWhileTheLineIsBehind has a target send one task, wait until nobody
// works on it, and rest; once the line has caught up it sends all there is room for.
func TestYieldingWhileTheLineIsBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var behind atomic.Bool
	behind.Store(true)
	cfg := w.config()
	cfg.BatchSize, cfg.InFlight, cfg.Behind = 10, 5, behind.Load
	dispatcher, err := NewDispatcher(cfg, w.stores.Outbox)
	require.NoError(t, err)
	defer closeRedis(dispatcher.redis)
	line := newDispatchLine(dispatcher, record.Graph)
	w.create(400)

	n, err := line.dispatch(t.Context())
	require.NoError(t, err)
	require.Equal(t, 10, n)
	_, err = line.dispatch(t.Context())
	require.ErrorIs(t, err, errFull, "a task of it waits")

	require.NoError(t, dispatcher.redis.FlushDB(t.Context()).Err()) // as if the task had been carried out
	_, err = line.dispatch(t.Context())
	require.ErrorIs(t, err, errFull, "now it rests")
	require.False(t, line.rest.IsZero())

	behind.Store(false)
	n, err = line.dispatch(t.Context())
	require.NoError(t, err)
	require.Equal(t, 50, n)
}
