package appview

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// measures are the metrics of the public address.
type measures struct {
	requests *prometheus.CounterVec   // by method, route, status
	duration *prometheus.HistogramVec // by method, route; seconds until the answer was written
	inFlight prometheus.Gauge
}

func newMeasures(registry *prometheus.Registry) (*measures, error) {
	m := &measures{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "layers_http_requests_total", Help: "Requests answered.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "layers_http_request_duration_seconds", Help: "Time from a request's arrival to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "layers_http_requests_in_flight", Help: "Requests being answered now.",
		}),
	}
	return m, errors.Join(registry.Register(m.requests), registry.Register(m.duration), registry.Register(m.inFlight))
}

func (m *measures) observe(ctx context.Context, method, route string, status int, took time.Duration) {
	method = methodLabel(method)
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	duration := m.duration.WithLabelValues(method, route)
	if exemplar := telemetry.Exemplar(ctx); exemplar != nil {
		duration.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), exemplar)
		return
	}
	duration.Observe(took.Seconds())
}

// methodLabel bounds the label: a client may send any word as its method.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return method
	}
	return "other"
}
