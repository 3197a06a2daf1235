package indexer

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/layers-pub/layers-appview/internal/store"
)

var (
	leading = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_indexer_leading", Help: "1 while this process holds the writer's lock.",
	})
	events = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_firehose_events_total", Help: "Events taken from the stream, by what became of them.",
	}, []string{"outcome"})
	changes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_records_indexed_total", Help: "Changes to records written to PostgreSQL, by collection and action.",
	}, []string{"collection", "action"})
	deadLetters = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_dead_letters_total", Help: "Events and records sent to the dead letters, by stage.",
	}, []string{"stage"})
	refusals = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_verification_failures_total", Help: "Commits and syncs that did not hold, by reason.",
	}, []string{"reason"})
	desynchronized = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_repos_desynchronized_total", Help: "Repositories whose chain broke.",
	})
	healed = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_repos_healed_total", Help: "Desynchronized repositories that went on exactly where they had been left.",
	})
	fetches = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_repo_fetches_total", Help: "Repositories that were fetched whole, by how it ended.",
	}, []string{"end"})
	spilt = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_held_events_spilt_total", Help: "Repositories of which too many events arrived while they were fetched.",
	})
	overruns = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_overruns_total", Help: "Times that a host no longer had the events since our cursor, so that every repository is fetched.",
	})
	outboxFull = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_indexer_outbox_full", Help: "1 while no events are taken because the projections are too far behind.",
	})
	storeRetries = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_store_retries_total", Help: "Writes to PostgreSQL that failed and were repeated.",
	})
	handlesDropped = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_handle_checks_dropped_total", Help: "Handle look-ups dropped because the queue was full.",
	})
	applySeconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "layers_apply_duration_seconds", Help: "Time of one transaction of the line.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	cursorLag = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_firehose_cursor_lag_seconds", Help: "Age of the last applied commit when it was applied.",
	})
	cursorSeq = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_firehose_cursor_seq", Help: "Sequence number up to which the stream has been applied.",
	})
)

// tally counts what a transaction did, to be shown once it has committed.
type tally struct {
	events, commits, skipped, replayed, desynchronized, held int
	records                                                  map[[2]string]int
	lag                                                      time.Duration
}

func (t *tally) changes(list []store.Change) {
	if t.records == nil {
		t.records = map[[2]string]int{}
	}
	for _, c := range list {
		t.records[[2]string{string(c.Key.Collection), string(c.Action)}]++
	}
}

func (tx *transaction) observe(took time.Duration) {
	t := tx.tally
	applySeconds.Observe(took.Seconds())
	events.WithLabelValues("commit").Add(float64(t.commits))
	events.WithLabelValues("skipped").Add(float64(t.skipped))
	events.WithLabelValues("replayed").Add(float64(t.replayed))
	events.WithLabelValues("desynchronized").Add(float64(t.desynchronized))
	events.WithLabelValues("held").Add(float64(t.held))
	events.WithLabelValues("other").Add(float64(t.events - t.commits - t.skipped - t.replayed - t.desynchronized - t.held))
	t.count(tx.out.DeadLetters)
	if t.commits > 0 {
		cursorLag.Set(t.lag.Seconds())
	}
	cursorSeq.Set(float64(tx.out.Cursor))
}

// count shows the changes, and what went to the dead letters.
func (t *tally) count(letters []store.DeadLetter) {
	for label, n := range t.records {
		changes.WithLabelValues(strings.TrimSpace(label[0]), label[1]).Add(float64(n))
	}
	for _, letter := range letters {
		deadLetters.WithLabelValues(letter.Stage).Inc()
	}
}
