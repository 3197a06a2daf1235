package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// tracesKept is how long it is known which trace a change belongs to.
const tracesKept = "10 minutes"

// writeTrace notes the trace of the batch beside its outbox rows. Nothing is written
// where there is none.
func (e *effect) writeTrace(ctx context.Context, batch *pgx.Batch) {
	parent := telemetry.Parent(ctx)
	if parent == "" || len(e.outbox) == 0 {
		return
	}
	first, last := e.outbox[0].version, e.outbox[0].version
	for _, row := range e.outbox {
		first, last = min(first, row.version), max(last, row.version)
	}
	batch.Queue("DELETE FROM traces WHERE last IN (SELECT last FROM traces WHERE at < now() - interval '" + tracesKept + "' ORDER BY last LIMIT 100)")
	batch.Queue("INSERT INTO traces (last, first, parent) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", last, first, parent)
}

// Traces knows which traces changes belong to.
type Traces struct{ pool *pgxpool.Pool }

// NewTraces takes a pool that may read.
func NewTraces(pool *pgxpool.Pool) *Traces { return &Traces{pool: pool} }

// Trace is the trace of the changes with versions from First to Last.
type Trace struct {
	First, Last int64
	Parent      string // W3C traceparent
}

// maxTraces bounds how many traces are looked up for the rows of one claim.
const maxTraces = 64

// Of finds the traces of rows, the newest of them if there are many.
func (t *Traces) Of(ctx context.Context, rows []record.Pending) ([]Trace, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	first, last := rows[0].Version, rows[0].Version
	for _, r := range rows {
		first, last = min(first, r.Version), max(last, r.Version)
	}
	found, err := collect(ctx, t.pool, pgx.RowToStructByPos[Trace],
		"SELECT first, last, parent FROM traces WHERE last >= $1 AND first <= $2 ORDER BY last DESC LIMIT $3", first, last, maxTraces)
	if err != nil {
		return nil, fmt.Errorf("read the traces of %d outbox rows: %w", len(rows), err)
	}
	return found, nil
}
