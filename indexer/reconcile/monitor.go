package reconcile

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/layers-pub/layers-appview/internal/record"
)

var (
	differences = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_projection_differences", Help: "Records about which a projection and PostgreSQL did not agree when they were compared last, without those that were on their way.",
	}, []string{"target"})
	comparedRecords = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_projection_compared_records", Help: "Records of PostgreSQL that the last comparison was of.",
	}, []string{"target"})
	comparedAt = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_projection_compared_timestamp_seconds", Help: "When a projection was compared with PostgreSQL last, by this process.",
	}, []string{"target"})
)

const (
	firstComparison = 15 * time.Minute // after the start, so that one that fails at once does not do much
	patience        = 30 * time.Second // for what is on its way
	monitorHeld     = 200_000          // records in memory at a time: some 10 MB
)

// Monitor compares every projection with PostgreSQL again and again, and shows the
// result as metrics, until ctx ends. It repairs nothing. ready tells whether it is for
// this process to do.
func Monitor(ctx context.Context, stores Stores, every time.Duration, ready func() bool, opts Options) error {
	opts.Wait, opts.Held, opts.Repair, opts.Deep = patience, monitorHeld, false, false
	wait := min(firstComparison, every)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = every
		if !ready() {
			wait = min(time.Minute, every)
			continue
		}
		for _, target := range stores.Targets() {
			if err := observe(ctx, stores, target, opts); err != nil && ctx.Err() == nil {
				opts.Logger.WarnContext(ctx, "comparing a projection with PostgreSQL failed", "target", string(target), "error", err)
				wait = min(firstComparison, every)
			}
		}
	}
}

// observe compares one projection.
func observe(ctx context.Context, stores Stores, target record.Target, opts Options) error {
	opts.Targets = []record.Target{target}
	report, err := Run(ctx, stores, opts)
	if err != nil {
		return err
	}
	differences.WithLabelValues(string(target)).Set(float64(report.Real()))
	comparedRecords.WithLabelValues(string(target)).Set(float64(report.Compared[target]))
	comparedAt.WithLabelValues(string(target)).SetToCurrentTime()
	if report.Real() > 0 {
		opts.Logger.ErrorContext(ctx, "a projection does not agree with PostgreSQL", "target", string(target), "differences", report.Real())
	}
	return nil
}
