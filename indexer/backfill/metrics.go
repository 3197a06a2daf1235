package backfill

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	requests = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_backfill_requests_total", Help: "Pages of repositories asked for: answered, busy, not_offered or failed.",
	}, []string{"result"})
	listed = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_backfill_found_total", Help: "Repositories that hosts listed, by method; one counts for each collection.",
	}, []string{"method"})
	asked = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_backfill_requested_total", Help: "Listed repositories that were not whole and did not wait to be fetched yet.",
	})
	unfinished = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_backfill_discoveries_unfinished", Help: "Collections whose repositories are still being searched for.",
	})
	repositories = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_backfill_repos", Help: "Repositories to be fetched: waiting in all, due now, failing, being fetched.",
	}, []string{"state"})
	failures = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_backfill_failing_repos", Help: "Repositories whose last attempt failed, by the host that it failed at; the 20 worst.",
	}, []string{"host"})
	rate = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_backfill_fetched_per_second", Help: "Repositories that became whole a second, over the last minute.",
	})
	remaining = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_backfill_eta_seconds", Help: "Time to fetch what waits, at the present rate; -1 if nothing moves.",
	})
)

const (
	observeEvery = 15 * time.Second
	observeSpan  = time.Minute
)

// observe shows the progress as metrics.
func (b *Backfill) observe(ctx context.Context) error {
	for {
		p, err := Measure(ctx, b.cfg.Resyncs, observeSpan)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			b.cfg.Logger.WarnContext(ctx, "measuring the backfill failed", "error", err)
		default:
			p.show()
		}
		if err := pause(ctx, observeEvery); err != nil {
			return err
		}
	}
}

func (p Progress) show() {
	unfinished.Set(float64(len(p.Unfinished())))
	for state, n := range map[string]int{"waiting": p.Waiting, "due": p.Due, "failing": p.Failing, "resyncing": p.Resyncing} {
		repositories.WithLabelValues(state).Set(float64(n))
	}
	failures.Reset()
	for _, h := range p.Hosts {
		failures.WithLabelValues(h.Host).Set(float64(h.Repos))
	}
	rate.Set(p.Rate())
	remaining.Set(-1)
	if eta, known := p.ETA(); known {
		remaining.Set(eta.Seconds())
	}
}
