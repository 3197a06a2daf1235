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
	recordsShown = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_records", Help: "Records of active accounts, by collection, at the moment that the statistics show; other: without a lexicon of ours.",
	}, []string{"collection"})
	refreshedAt = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_statistics_refreshed_timestamp_seconds", Help: "The moment that the statistics show, as Unix time; 0: none yet.",
	})
)
