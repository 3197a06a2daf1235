package traffic

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

func newLimits(t *testing.T, n int) *Limits {
	t.Helper()
	l, err := NewLimits(map[Group]int{Search: n}, prometheus.NewRegistry())
	require.NoError(t, err)
	return l
}

// value is the sum of counters.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

func TestBeyondTheQueueIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	l := newLimits(t, 1)
	l.wait = time.Hour
	leave, err := l.Enter(t.Context(), Search)
	require.NoError(t, err)

	entered := make(chan func(), queuePerSlot)
	for range queuePerSlot {
		go func() {
			if leave, err := l.Enter(t.Context(), Search); err == nil {
				entered <- leave
			}
		}()
	}
	require.Eventually(t, func() bool { return len(l.groups[Search].queue) == queuePerSlot }, time.Minute, time.Millisecond)
	_, err = l.Enter(t.Context(), Search)
	answer := xrpc.AsError(err)
	require.Equal(t, http.StatusServiceUnavailable, answer.Status)
	require.Equal(t, "ServiceUnavailable", answer.Name)
	require.Positive(t, answer.RetryAfter)
	require.Equal(t, 1.0, value(t, l.refused))

	_, err = l.Enter(t.Context(), Graph)
	require.NoError(t, err, "other groups have room of their own")
	_, err = l.Enter(t.Context(), Open)
	require.NoError(t, err)

	leave()
	for range queuePerSlot { // those that waited are let in, one after the other
		(<-entered)()
	}
	require.Empty(t, l.groups[Search].slots)
	require.Empty(t, l.groups[Search].queue)
}

func TestNobodyWaitsForLong(t *testing.T) {
	t.Parallel()
	l := newLimits(t, 1)
	l.wait = time.Millisecond
	_, err := l.Enter(t.Context(), Search)
	require.NoError(t, err)
	_, err = l.Enter(t.Context(), Search)
	require.Equal(t, http.StatusServiceUnavailable, xrpc.AsError(err).Status)

	l.wait = time.Hour
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Enter(gone, Search)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, l.groups[Search].queue, "who has gone takes no place")
}
