// Package telemetry shows an operator what the stores do for this process: how many
// calls of which kind, how long they take, how many fail, how many connections are in
// use. Where traces are exported, each call is also a span of the trace that asked
// for it, a trace can be carried over a queue, and log lines bear its ID.
//
// Without an exporter traces cost nothing but a look at one variable.
package telemetry

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// The stores, as metrics and spans name them.
const (
	PostgreSQL    = "postgresql"
	Elasticsearch = "elasticsearch"
	Neo4j         = "neo4j"
	Redis         = "redis"
)

var (
	callSeconds = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name: "layers_store_query_duration_seconds", Help: "Time of one call of a store, until its answer was there.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
	}, []string{"store", "operation"})
	callErrors = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_store_errors_total", Help: "Calls of a store that failed; those whose caller went away are not among them.",
	}, []string{"store", "operation"})
)

// Operation is a kind of calls of a store. There are few, made when the program starts.
type Operation struct {
	span    string
	options []trace.SpanStartOption
	seconds prometheus.Observer
	errors  prometheus.Counter
}

// NewOperation names a kind of calls by the store and what is done there.
func NewOperation(store, name string) *Operation {
	return &Operation{
		span: store + " " + name,
		options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("db.system.name", store), attribute.String("db.operation.name", name))},
		seconds: callSeconds.WithLabelValues(store, name), errors: callErrors.WithLabelValues(store, name),
	}
}

// Call is one call under way.
type Call struct {
	operation *Operation
	began     time.Time
	span      trace.Span // nil for a call that is not traced
}

// Start begins a call. The context is that of its span, or ctx.
func (o *Operation) Start(ctx context.Context) (context.Context, Call) {
	call := Call{operation: o}
	if Traced(ctx) {
		ctx, call.span = tracer().Start(ctx, o.span, o.options...)
	}
	call.began = time.Now()
	return ctx, call
}

// Text adds what the store is asked to the span of a call; it must hold no values.
func (c Call) Text(text string) {
	if c.span != nil {
		c.span.SetAttributes(attribute.String("db.query.text", text[:min(len(text), maxText)]))
	}
}

const maxText = 2000 // bytes

// End ends the call.
func (c Call) End(err error) {
	c.operation.seconds.Observe(time.Since(c.began).Seconds())
	failed := err != nil && !errors.Is(err, context.Canceled)
	if failed {
		c.operation.errors.Inc()
	}
	if c.span == nil {
		return
	}
	if failed {
		c.span.SetStatus(codes.Error, "the call failed") // the log has what it said, which may hold values
	}
	c.span.End()
}
