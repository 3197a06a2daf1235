package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

var someCall = NewOperation("somestore", "ask")

// recorded lets spans go to memory for the time of a test, which cannot run beside others.
func recorded(t *testing.T) *tracetest.SpanRecorder {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	Use(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	t.Cleanup(func() { Use(nil) })
	return spans
}

func TestCallsAreCountedWithoutThoseThatWereGivenUp(t *testing.T) {
	counted := NewOperation("somestore", "count")
	for _, err := range []error{nil, errors.New("refused"), context.Canceled, context.DeadlineExceeded} {
		_, call := counted.Start(t.Context())
		call.End(err)
	}
	var failures dto.Metric
	require.NoError(t, counted.errors.Write(&failures))
	require.InDelta(t, 2, failures.GetCounter().GetValue(), 0)
	require.Equal(t, uint64(4), observations(t, "layers_store_query_duration_seconds", "count"))
}

// observations are those of a histogram's series with that operation.
func observations(t *testing.T, name, operation string) (n uint64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if family.GetName() == name && l.GetName() == "operation" && l.GetValue() == operation {
					n += m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	return n
}

func TestWithoutAnExporterNothingIsAllocated(t *testing.T) {
	ctx := t.Context()
	now := time.Now()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		within, call := someCall.Start(ctx)
		call.Text("SELECT 1")
		_, span := Start(within, "part")
		Past(within, "past", now, now)
		_, begun := Begin(within, "batch", trace.SpanKindConsumer, now, nil)
		if Parent(within) != "" || Exemplar(within) != nil {
			panic("there is no trace")
		}
		begun.End(nil)
		span.End(nil)
		call.End(nil)
	}))
}

func TestCallsOutsideATraceAreNoSpans(t *testing.T) {
	spans := recorded(t)
	_, call := someCall.Start(t.Context())
	call.End(nil)
	_, span := Start(t.Context(), "part")
	span.End(nil)
	require.Empty(t, spans.Ended())
}

func TestATraceGoesOnBehindAQueue(t *testing.T) {
	spans := recorded(t)
	ctx, batch := Begin(t.Context(), "batch", trace.SpanKindConsumer, time.Now(), nil)
	carried := Parent(ctx)
	batch.End(nil)
	ctx, work := Begin(t.Context(), "work", trace.SpanKindConsumer, time.Now(), []string{carried})
	_, call := someCall.Start(ctx)
	call.End(errors.New("with a value in it"))
	work.End(nil)

	ended := spans.Ended()
	require.Len(t, ended, 3)
	for _, span := range ended {
		require.Equal(t, ended[0].SpanContext().TraceID(), span.SpanContext().TraceID(), span.Name())
	}
	require.Equal(t, "somestore ask", ended[1].Name())
	require.Equal(t, ended[2].SpanContext().SpanID(), ended[1].Parent().SpanID())
	require.Equal(t, ended[0].SpanContext().SpanID(), ended[2].Parent().SpanID())
	require.NotContains(t, ended[1].Status().Description, "value")
}

func TestManyTracesAreLinkedNotJoined(t *testing.T) {
	spans := recorded(t)
	var parents []string
	for range 3 {
		ctx, span := Begin(t.Context(), "batch", trace.SpanKindConsumer, time.Now(), nil)
		parents = append(parents, Parent(ctx))
		span.End(nil)
	}
	_, work := Begin(t.Context(), "work", trace.SpanKindConsumer, time.Now(), parents)
	work.End(nil)
	last := spans.Ended()[3]
	require.False(t, last.Parent().IsValid())
	require.Len(t, last.Links(), 3)
	for i, link := range last.Links() {
		require.Equal(t, spans.Ended()[i].SpanContext().TraceID(), link.SpanContext.TraceID())
	}
}

func TestARequestGoesOnWithItsCallersTrace(t *testing.T) {
	spans := recorded(t)
	req := httptest.NewRequest(http.MethodGet, "/x?q=private", nil)
	req.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	ctx, span := Serve(req, "/x")
	var out bytes.Buffer
	slog.New(Logs(slog.NewTextHandler(&out, nil))).With("a", 1).InfoContext(ctx, "said")
	span.Served(http.StatusServiceUnavailable)

	served := spans.Ended()[0]
	require.Equal(t, "GET /x", served.Name())
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", served.SpanContext().TraceID().String())
	require.Equal(t, codes.Error, served.Status().Code)
	require.Contains(t, out.String(), "trace_id=0af7651916cd43dd8448eb211c80319c")
	require.Equal(t, prometheus.Labels{"trace_id": "0af7651916cd43dd8448eb211c80319c"}, Exemplar(ctx))
}

func TestConnectionsOfPoolsAddUp(t *testing.T) {
	stops := []func(){
		Watch("pooled", func() Pool { return Pool{Used: 1, Idle: 2, Max: 4} }),
		Watch("pooled", func() Pool { return Pool{Used: 3, Idle: 0, Max: 5} }),
	}
	gathered := func() (all map[string]float64) {
		all = map[string]float64{}
		families, err := prometheus.DefaultGatherer.Gather()
		require.NoError(t, err)
		for _, family := range families {
			for _, m := range family.GetMetric() {
				name, ours := family.GetName(), false
				for _, l := range m.GetLabel() {
					ours = ours || l.GetValue() == "pooled"
					if l.GetName() == "state" {
						name += " " + l.GetValue()
					}
				}
				if ours {
					all[name] = m.GetGauge().GetValue()
				}
			}
		}
		return all
	}
	require.Equal(t, map[string]float64{"layers_store_connections used": 4, "layers_store_connections idle": 2, "layers_store_connections_max": 9}, gathered())
	for _, stop := range stops {
		stop()
	}
	require.Empty(t, gathered())
}

func TestTheEnvironmentDecides(t *testing.T) {
	for _, c := range []struct {
		set    map[string]string
		wanted bool
	}{
		{map[string]string{}, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, false},
	} {
		for name, value := range c.set {
			t.Setenv(name, value)
		}
		require.Equal(t, c.wanted, Wanted(), c.set)
		for name := range c.set {
			t.Setenv(name, "")
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	_, err := Export(t.Context(), "layers-test", "dev")
	require.ErrorContains(t, err, "OTEL_EXPORTER_OTLP_PROTOCOL")
}

func BenchmarkCallOff(b *testing.B) {
	ctx := b.Context()
	for b.Loop() {
		_, call := someCall.Start(ctx)
		call.End(nil)
	}
}
