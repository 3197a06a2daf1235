package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

var (
	reads       = telemetry.NewOperation(telemetry.PostgreSQL, "read")
	writes      = telemetry.NewOperation(telemetry.PostgreSQL, "write")
	begins      = telemetry.NewOperation(telemetry.PostgreSQL, "begin")
	commits     = telemetry.NewOperation(telemetry.PostgreSQL, "commit")
	others      = telemetry.NewOperation(telemetry.PostgreSQL, "other")
	sentBatches = telemetry.NewOperation(telemetry.PostgreSQL, "batch")
	copies      = telemetry.NewOperation(telemetry.PostgreSQL, "copy")
)

// observer has every statement of a pool counted, and made a span where there is a trace.
type observer struct{}

var (
	_ pgx.QueryTracer    = observer{}
	_ pgx.BatchTracer    = observer{}
	_ pgx.CopyFromTracer = observer{}
)

// observed is the context of a call under way, in one allocation with the call.
type observed struct {
	context.Context
	call telemetry.Call
}

type observedKey struct{}

func (o *observed) Value(key any) any {
	if key == (observedKey{}) {
		return o
	}
	return o.Context.Value(key)
}

func begin(ctx context.Context, operation *telemetry.Operation, text string) context.Context {
	ctx, call := operation.Start(ctx)
	call.Text(text)
	return &observed{ctx, call}
}

func end(ctx context.Context, err error) {
	if o, ok := ctx.Value(observedKey{}).(*observed); ok {
		o.call.End(err)
	}
}

func (observer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return begin(ctx, operationOf(data.SQL), data.SQL)
}

func (observer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	end(ctx, data.Err)
}

func (observer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return begin(ctx, sentBatches, "")
}

func (observer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (observer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	end(ctx, data.Err)
}

func (observer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	return begin(ctx, copies, data.TableName.Sanitize())
}

func (observer) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromEndData) {
	end(ctx, data.Err)
}

// operationOf classes a statement by its first word, and one that begins with WITH by
// what it holds.
func operationOf(sql string) *telemetry.Operation {
	sql = strings.TrimLeft(sql, " \t\r\n(")
	word, _, _ := strings.Cut(sql[:min(len(sql), 12)], " ")
	switch strings.ToUpper(word) {
	case "SELECT":
		return reads
	case "INSERT", "UPDATE", "DELETE":
		return writes
	case "WITH":
		if strings.Contains(sql, "UPDATE ") || strings.Contains(sql, "INSERT ") || strings.Contains(sql, "DELETE ") {
			return writes
		}
		return reads
	case "BEGIN":
		return begins
	case "COMMIT", "ROLLBACK":
		return commits
	}
	return others
}
