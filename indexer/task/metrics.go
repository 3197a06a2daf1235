package task

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
)

var (
	dispatched = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_task_dispatched_total", Help: "Outbox rows put into tasks.",
	}, []string{"target"})
	projected = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_task_records_total", Help: "Records that tasks dealt with, by outcome: written, deleted, retried or dead.",
	}, []string{"target", "outcome"})
	taskSeconds = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name: "layers_task_seconds", Help: "Time that one task took.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 15),
	}, []string{"target"})
	outboxRows = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_outbox_rows", Help: "Outbox rows of a target, counted up to 100,000.",
	}, []string{"target"})
	outboxSweeps = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_outbox_sweeps", Help: "Collections, repositories and groups of referrers that have yet to become outbox rows.",
	}, []string{"target"})
	outboxAge = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_outbox_oldest_seconds", Help: "How long the oldest outbox row of a target has waited.",
	}, []string{"target"})
	knowledge = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_knowledge_references_total", Help: "References to knowledge bases in records that were written to a graph, by the knowledge base; other: one that the lexicons do not name.",
	}, []string{"target", "source"})
	queueTasks = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_task_queue_tasks", Help: "Tasks in Redis, by whether they wait, are worked on, or wait to be tried again.",
	}, []string{"target", "queue", "state"})
	storeOpen = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_task_store_unreachable", Help: "1 while a target's store does not answer and its tasks are held back.",
	}, []string{"target"})
)

// knowledgeCounters are the counters of one target, looked up once.
type knowledgeCounters struct {
	of    map[string]prometheus.Counter
	other prometheus.Counter
}

func newKnowledgeCounters(known *catalog.Catalog, target record.Target) knowledgeCounters {
	k := knowledgeCounters{of: map[string]prometheus.Counter{}, other: knowledge.WithLabelValues(string(target), "other")}
	for _, source := range project.KnowledgeSources(known.Collections()) {
		k.of[source] = knowledge.WithLabelValues(string(target), source)
	}
	return k
}

// count counts what edges lead to.
func (k knowledgeCounters) count(edges []graph.Edge) {
	for i := range edges {
		if edges[i].Type != graph.KnowledgeRef {
			continue
		}
		if counter, ok := k.of[edges[i].To.Source]; ok {
			counter.Inc()
			continue
		}
		k.other.Inc()
	}
}
