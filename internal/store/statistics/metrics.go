package statistics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	refreshes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_statistics_refreshes_total", Help: "Refreshes of the statistics: done or failed.",
	}, []string{"result"})
	refreshSeconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "layers_statistics_refresh_seconds", Help: "Time that a refresh of the statistics took.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 16),
	})
	refreshedAt = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_statistics_refreshed_timestamp_seconds", Help: "The moment that the statistics show, as Unix time; 0: none yet.",
	})
)
