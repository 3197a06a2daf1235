package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// Concurrency is how many requests of each group are worked on at a time by default.
// PostgreSQL has sixteen connections for a process, and gets go there together; what
// searches and traverses mostly waits for other stores.
var Concurrency = map[Group]int{Records: 64, References: 32, Search: 64, Complete: 32, Graph: 32, Statistics: 16, Admin: 4}

const (
	queuePerSlot = 4               // requests that may wait for each that is worked on
	queueTime    = 2 * time.Second // for which one may wait
	askAgain     = time.Second     // what a client that was sent away is told to wait
)

// Limits bound how many requests a process works on. Those beyond wait, briefly and
// not too many of them; the rest is told to come back, which costs nothing, so that
// what has been let in is answered in time however many ask.
type Limits struct {
	groups  map[Group]*limit
	wait    time.Duration
	refused *prometheus.CounterVec
}

type limit struct {
	slots, queue chan struct{}
}

// NewLimits makes limits; groups that are not in concurrency have none.
func NewLimits(concurrency map[Group]int, registry prometheus.Registerer) (*Limits, error) {
	l := &Limits{
		groups: map[Group]*limit{}, wait: queueTime,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "layers_http_overload_refused_total", Help: "Requests answered with 503 since too many of their group were under way.",
		}, []string{"group"}),
	}
	running := prometheus.NewDesc("layers_http_group_running", "Requests of a group that are worked on.", []string{"group"}, nil)
	waiting := prometheus.NewDesc("layers_http_group_waiting", "Requests of a group that wait to be worked on.", []string{"group"}, nil)
	for group, n := range concurrency {
		if n > 0 {
			l.groups[group] = &limit{slots: make(chan struct{}, n), queue: make(chan struct{}, queuePerSlot*n)}
		}
	}
	gauges := collector{describe: []*prometheus.Desc{running, waiting}, collect: func(to chan<- prometheus.Metric) {
		for group, g := range l.groups {
			to <- prometheus.MustNewConstMetric(running, prometheus.GaugeValue, float64(len(g.slots)), string(group))
			to <- prometheus.MustNewConstMetric(waiting, prometheus.GaugeValue, float64(len(g.queue)), string(group))
		}
	}}
	return l, errors.Join(registry.Register(l.refused), registry.Register(gauges))
}

// collector makes metrics when it is asked.
type collector struct {
	describe []*prometheus.Desc
	collect  func(chan<- prometheus.Metric)
}

func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.describe {
		to <- d
	}
}

func (c collector) Collect(to chan<- prometheus.Metric) { c.collect(to) }

// Enter waits for room. The caller calls leave when it is done. An error is the
// answer: 503 with Retry-After, or that of a context that has ended.
func (l *Limits) Enter(ctx context.Context, group Group) (leave func(), err error) {
	g := l.groups[group]
	if g == nil {
		return func() {}, nil
	}
	leave = func() { <-g.slots }
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	default:
	}
	select {
	case g.queue <- struct{}{}:
		defer func() { <-g.queue }()
	default:
		return nil, l.refuse(group)
	}
	patience := time.NewTimer(l.wait)
	defer patience.Stop()
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	case <-patience.C:
		return nil, l.refuse(group)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Limits) refuse(group Group) error {
	l.refused.WithLabelValues(string(group)).Inc()
	return &xrpc.Error{
		Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: askAgain,
		Message: fmt.Sprintf("too many requests of the group %s are under way; try again", group),
	}
}
