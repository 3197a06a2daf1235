package telemetry

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Serve begins the span of a request, in the trace that its headers name if they do.
// route must be one of few, as those of a router are.
func Serve(req *http.Request, route string) (context.Context, Span) {
	ctx := w3c.Extract(req.Context(), propagation.HeaderCarrier(req.Header))
	ctx, span := tracer().Start(ctx, req.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", req.Method), attribute.String("http.route", route)))
	return ctx, Span{span}
}

// Served ends the span of a request.
func (s Span) Served(status int) {
	s.Note(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}

// Exemplar is what leads from a measurement to the trace that it was made in; nil
// where there is none.
func Exemplar(ctx context.Context) prometheus.Labels {
	if !Tracing() {
		return nil
	}
	at := trace.SpanContextFromContext(ctx)
	if !at.IsSampled() {
		return nil
	}
	return prometheus.Labels{"trace_id": at.TraceID().String()}
}
