package indexer_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// gauge reads a metric without labels.
func gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(t, "no such metric", name)
	return 0
}

// TestNoEventsAreTakenWhileTheProjectionsAreTooFarBehind has nobody empty the
// outbox at first, and then somebody.
func TestNoEventsAreTakenWhileTheProjectionsAreTooFarBehind(t *testing.T) {
	t.Parallel()
	const bound, commits = 100, 2000
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	r.writer = store.NewWriter(r.db.Pool, store.Routes{corpus: {record.Search}}, discard)
	outbox := store.NewOutbox(r.db.Pool)
	r.adjust = func(cfg *indexer.Config) {
		cfg.Outbox, cfg.OutboxBound, cfg.OutboxEvery = outbox, bound, time.Millisecond
		cfg.Window, cfg.BatchEvents = 8, 4
	}
	amara := r.account("amara")
	for i := range commits {
		r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
	}
	r.start()
	require.Eventually(t, func() bool { return gauge(t, "layers_indexer_outbox_full") == 1 }, patient, tick, "the line was not held up")
	require.Greater(t, r.depth(outbox), int64(bound))

	// What was in the window comes through; then nothing does.
	seq, same := int64(-1), 0
	require.Eventually(t, func() bool {
		now, _, err := r.writer.Cursor(t.Context(), r.server.RelayURL())
		require.NoError(t, err)
		if same++; now != seq {
			seq, same = now, 0
		}
		return same == 100
	}, patient, tick, "the line went on")
	require.Less(t, seq, r.world.LastSeq())

	// Down to nine tenths it stays so.
	r.drain(outbox, r.depth(outbox)-bound)
	require.Equal(t, 1.0, gauge(t, "layers_indexer_outbox_full"))

	require.Eventually(t, func() bool {
		r.drain(outbox, 500)
		now, _, err := r.writer.Cursor(t.Context(), r.server.RelayURL())
		return err == nil && now == r.world.LastSeq()
	}, patient, tick, "the line does not take events again")
	r.requireTruth()
}

func (r *rig) depth(outbox *store.Outbox) int64 {
	r.t.Helper()
	depth, err := outbox.Depth(r.t.Context(), record.Search)
	require.NoError(r.t, err)
	return depth.Rows
}

// drain takes rows out of the outbox, as a projection does that has written them.
func (r *rig) drain(outbox *store.Outbox, rows int64) {
	r.t.Helper()
	claimed, err := outbox.Claim(r.t.Context(), record.Search, int(rows), time.Minute)
	require.NoError(r.t, err)
	require.NoError(r.t, outbox.Done(r.t.Context(), record.Search, claimed))
}
