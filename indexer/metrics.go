package indexer

import (
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/layers-pub/layers-appview/internal/catalog"
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
	taken = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_firehose_changes_total", Help: "Changes of records in the commits of the stream, by collection, whether or not they took effect; other: not followed.",
	}, []string{"collection"})
	references = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_references_indexed_total", Help: "References of records that were written, by the collection that they lead to.",
	}, []string{"type"})
	cursorSeq = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_firehose_cursor_seq", Help: "Sequence number up to which the stream has been applied.",
	})
)

// tally counts what a transaction did, to be shown once it has committed.
type tally struct {
	events, commits, skipped, replayed, desynchronized, held int
	records                                                  map[[2]string]int // by collection and action
	refs                                                     map[syntax.NSID]int
	lag                                                      time.Duration
}

func (t *tally) changes(list []store.Change) {
	if t.records == nil {
		t.records, t.refs = map[[2]string]int{}, map[syntax.NSID]int{}
	}
	for i := range list {
		c := &list[i]
		t.records[[2]string{string(c.Key.Collection), string(c.Action)}]++
		for _, ref := range c.Refs {
			t.refs[collectionOf(ref.Target)]++
		}
	}
}

// collectionOf is what an AT-URI has in the place of a collection, whether or not it is one.
func collectionOf(uri syntax.ATURI) syntax.NSID {
	_, path, _ := strings.Cut(strings.TrimPrefix(string(uri), "at://"), "/")
	collection, _, _ := strings.Cut(path, "/")
	return syntax.NSID(collection)
}

// label names a collection in metrics: those without a lexicon share one, since anybody
// can make up more of them.
func label(known *catalog.Catalog, collection syntax.NSID) string {
	if c, ok := known.Collection(collection); ok && !c.Foreign {
		return string(c.NSID)
	}
	return otherCollections
}

const otherCollections = "other"

// takenCounters are the counters of every collection, looked up once.
type takenCounters struct {
	of    map[string]prometheus.Counter
	other prometheus.Counter
}

func newTakenCounters(known *catalog.Catalog) takenCounters {
	t := takenCounters{of: map[string]prometheus.Counter{}, other: taken.WithLabelValues(otherCollections)}
	for _, c := range known.Collections() {
		t.of[string(c.NSID)] = taken.WithLabelValues(label(known, c.NSID))
	}
	return t
}

func (t takenCounters) count(collection string) {
	if counter, ok := t.of[collection]; ok {
		counter.Inc()
		return
	}
	t.other.Inc()
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
	t.count(tx.line.Catalog, tx.out.DeadLetters)
	if t.commits > 0 {
		lag.applied(t.lag)
	}
	cursorSeq.Set(float64(tx.out.Cursor))
}

// count shows the changes, and what went to the dead letters.
func (t *tally) count(known *catalog.Catalog, letters []store.DeadLetter) {
	for of, n := range t.records {
		changes.WithLabelValues(label(known, syntax.NSID(of[0])), of[1]).Add(float64(n))
	}
	for to, n := range t.refs {
		references.WithLabelValues(label(known, to)).Add(float64(n))
	}
	for _, letter := range letters {
		deadLetters.WithLabelValues(letter.Stage).Inc()
	}
}
