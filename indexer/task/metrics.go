package task

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	storeOpen = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_task_store_unreachable", Help: "1 while a target's store does not answer and its tasks are held back.",
	}, []string{"target"})
)
