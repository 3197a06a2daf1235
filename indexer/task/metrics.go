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
	storeOpen = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_task_store_unreachable", Help: "1 while a target's store does not answer and its tasks are held back.",
	}, []string{"target"})
)
