package indexer

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// traceTime is now where traces are exported, and zero where nobody will ask.
func traceTime() (now time.Time) {
	if telemetry.Tracing() {
		now = time.Now()
	}
	return now
}

// beginTrace begins the trace of a batch, with what has happened to its frames already:
// they were read from the socket, and verified in parallel. What the projections do of
// it goes on with this trace.
func (tx *transaction) beginTrace(ctx context.Context, slots []*slot) (context.Context, telemetry.Span) {
	if len(slots) == 0 || !telemetry.Tracing() || slots[0].read.IsZero() {
		return ctx, telemetry.Span{}
	}
	read, lastRead, began, ended, bytes := slots[0].read, slots[0].read, slots[0].began, slots[0].ended, 0
	for _, s := range slots {
		read, lastRead = earlier(read, s.read), later(lastRead, s.read)
		began, ended = earlier(began, s.began), later(ended, s.ended)
		bytes += len(s.frame.Data)
	}
	ctx, span := telemetry.Begin(ctx, "firehose batch", trace.SpanKindConsumer, read, nil,
		attribute.String("layers.host", tx.host), attribute.Int64("layers.seq", tx.seq), attribute.Int("layers.events", len(slots)),
		attribute.Int("layers.changes", len(tx.out.Changes)), attribute.Int("layers.bytes", bytes))
	telemetry.Past(ctx, "socket", read, lastRead)
	telemetry.Past(ctx, "verify", began, ended)
	return ctx, span
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
