package telemetry

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const scope = "github.com/layers-pub/layers-appview"

// exporting is nil as long as no traces are exported.
var exporting atomic.Pointer[trace.Tracer]

// Tracing tells whether traces are exported.
func Tracing() bool { return exporting.Load() != nil }

// Traced tells whether ctx is of a trace that is exported.
func Traced(ctx context.Context) bool {
	return Tracing() && trace.SpanFromContext(ctx).IsRecording()
}

func tracer() trace.Tracer {
	if t := exporting.Load(); t != nil {
		return *t
	}
	return noop.Tracer{}
}

// Use lets traces go to a provider; nil ends that. It is for Export, and for tests.
func Use(provider trace.TracerProvider) {
	if provider == nil {
		exporting.Store(nil)
		return
	}
	t := provider.Tracer(scope)
	exporting.Store(&t)
}

// Wanted tells whether the environment names a collector, in the variables that all
// OpenTelemetry programs have: OTEL_EXPORTER_OTLP_ENDPOINT, or …_TRACES_ENDPOINT,
// unless OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER=none says otherwise.
func Wanted() bool {
	named := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	return named && !strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") && !strings.EqualFold(os.Getenv("OTEL_TRACES_EXPORTER"), "none")
}

// Export sends traces to the collector that the environment names, by OTLP over HTTP,
// if it names one. How many, OTEL_TRACES_SAMPLER says. end sends what is left.
func Export(ctx context.Context, service, version string) (end func(context.Context) error, err error) {
	if !Wanted() {
		return func(context.Context) error { return nil }, nil
	}
	if err := checkProtocol(); err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("preparing the export of traces: %w", err)
	}
	// What the environment says of the process comes last, and wins.
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", service), attribute.String("service.version", version)), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describing this process for traces: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	Use(provider)
	return func(ctx context.Context) error {
		Use(nil)
		return provider.Shutdown(ctx)
	}, nil
}

func checkProtocol() error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if value := os.Getenv(name); value != "" && value != "http/protobuf" {
			return fmt.Errorf("%s: %q is not http/protobuf, the one form in which traces are sent; the port of that is 4318", name, value)
		}
	}
	return nil
}

// Span is a part of a trace; the zero Span is of none, and may be used like any other.
type Span struct{ span trace.Span }

// Start begins a span below that of ctx. Without one there is none.
func Start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, Span) {
	if !Traced(ctx) {
		return ctx, Span{}
	}
	ctx, span := tracer().Start(ctx, name, trace.WithAttributes(attributes...))
	return ctx, Span{span}
}

// Past adds a span that has ended already.
func Past(ctx context.Context, name string, began, ended time.Time, attributes ...attribute.KeyValue) {
	if Traced(ctx) {
		_, span := tracer().Start(ctx, name, trace.WithTimestamp(began), trace.WithAttributes(attributes...))
		span.End(trace.WithTimestamp(ended))
	}
}

// Begin starts a trace: at a time that may have passed, of a kind, and linked to the
// traces that led to it. With exactly one such, it goes on with that.
func Begin(ctx context.Context, name string, kind trace.SpanKind, began time.Time, from []string, attributes ...attribute.KeyValue) (context.Context, Span) {
	if !Tracing() {
		return ctx, Span{}
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithTimestamp(began), trace.WithAttributes(attributes...)}
	if len(from) == 1 {
		ctx = Continue(ctx, from[0])
	} else {
		for _, parent := range from {
			options = append(options, trace.WithLinks(trace.LinkFromContext(Continue(context.Background(), parent))))
		}
	}
	ctx, span := tracer().Start(ctx, name, options...)
	return ctx, Span{span}
}

// Note adds to what the span says.
func (s Span) Note(attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(attributes...)
	}
}

// End ends the span. The error itself stays in the log, as it may hold values.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, "failed")
	}
	s.span.End()
}

var w3c = propagation.TraceContext{}

// Parent is ctx's place in its trace, to be carried elsewhere: a W3C traceparent.
// Empty where there is no trace.
func Parent(ctx context.Context) string {
	if !Traced(ctx) {
		return ""
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}

// Continue puts ctx into a trace by what [Parent] gave elsewhere. What is none is
// left alone.
func Continue(ctx context.Context, parent string) context.Context {
	return w3c.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}
