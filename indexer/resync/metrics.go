package resync

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	running = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_resync_running", Help: "Repositories that are being fetched.",
	})
	waiting = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_resync_waiting", Help: "Repositories that are due and wait in this process for a place; those further behind are in the database alone.",
	})
	done = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_resync_done_total", Help: "Fetches that ended, by result.",
	}, []string{"result"})
	records = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_resync_records_total", Help: "Records of repositories that were fetched whole, by what became of them.",
	}, []string{"outcome"})
	bytesRead = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_resync_bytes_total", Help: "Bytes of repositories fetched, decoded.",
	})
	seconds = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name: "layers_resync_duration_seconds", Help: "Time of a fetch: read is getting it from its host, apply is writing the difference.",
		Buckets: prometheus.ExponentialBuckets(0.01, 3, 12),
	}, []string{"part"})
	failures = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_resync_failures_total", Help: "Attempts at one host that came to nothing, by class.",
	}, []string{"class"})
	hostsClosed = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_resync_hosts_closed_total", Help: "Times that a host was left alone for a while: because it asked for it, or because it failed.",
	}, []string{"cause"})
)

// Results of [done].
const (
	resultSynchronized = "synchronized"
	resultPurged       = "purged"
	resultDropped      = "dropped"        // a candidate without records of interest
	resultInactive     = "inactive"       // the account is not active
	resultDeferred     = "deferred"       // the host is to be left alone for now
	resultAgain        = "desynchronized" // the stream has moved past what was fetched
	resultFailed       = "failed"
)

func (c counts) observe() {
	for outcome, n := range map[string]int{
		"created": c.created, "updated": c.updated, "deleted": c.deleted, "unchanged": c.unchanged, "invalid": c.invalid,
	} {
		records.WithLabelValues(outcome).Add(float64(n))
	}
}
