package live

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	following = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_events_followers", Help: "Clients that follow the index, by transport.",
	}, []string{"transport"})
	// Made before anybody follows, so that nobody shows as 0 and not as nothing.
	followingEvents, followingSocket = following.WithLabelValues("sse"), following.WithLabelValues("websocket")

	sent = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_events_sent_total", Help: "Events sent to those who follow the index.",
	})
	dropped = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_events_dropped_total", Help: "Followers that this process left, by reason: slow for one too far behind, stuck for one that took nothing in time, drain at the end of the process.",
	}, []string{"reason"})
	refused = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_events_refused_total", Help: "Followers that were not admitted, by the bound that was reached: of a client, or of the process.",
	}, []string{"bound"})
	readFailures = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_events_read_failures_total", Help: "Reads of the log of events that failed.",
	})
	lag = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "layers_events_lag_seconds", Help: "Time from the transaction of an event until this process has read it.",
		Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
	})
)
