package telemetry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Pool is how many connections a pool has.
type Pool struct{ Used, Idle, Max int }

// pools adds up the connections of this process to each store.
type pools struct {
	mu   sync.Mutex
	next int
	of   map[int]watched
}

type watched struct {
	store string
	look  func() Pool
}

var (
	watching        = &pools{of: map[int]watched{}}
	connections     = prometheus.NewDesc("layers_store_connections", "Connections to a store, by whether they are in use or idle.", []string{"store", "state"}, nil)
	connectionsMost = prometheus.NewDesc("layers_store_connections_max", "Connections to a store that this process may have.", []string{"store"}, nil)
)

func init() { prometheus.MustRegister(watching) }

// Watch shows the connections of a pool until stop is called.
func Watch(store string, look func() Pool) (stop func()) {
	p := watching
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	id := p.next
	p.of[id] = watched{store, look}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.of, id)
	}
}

// Describe implements [prometheus.Collector].
func (p *pools) Describe(out chan<- *prometheus.Desc) { out <- connections; out <- connectionsMost }

// Collect implements [prometheus.Collector].
func (p *pools) Collect(out chan<- prometheus.Metric) {
	sums := map[string]Pool{}
	p.mu.Lock()
	for _, w := range p.of {
		sum, one := sums[w.store], w.look()
		sums[w.store] = Pool{sum.Used + one.Used, sum.Idle + one.Idle, sum.Max + one.Max}
	}
	p.mu.Unlock()
	for store, sum := range sums {
		out <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(sum.Used), store, "used")
		out <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(sum.Idle), store, "idle")
		out <- prometheus.MustNewConstMetric(connectionsMost, prometheus.GaugeValue, float64(sum.Max), store)
	}
}
