package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// outboxRow is a row of the outbox to add.
type outboxRow struct {
	target  record.Target
	key     record.Key
	version int64
}

// copyIn adds the new records, the references of new and changed ones, the events
// that are held, and the outbox rows.
func (e *effect) copyIn(ctx context.Context, tx pgx.Tx, refs []ref) error {
	if err := copyRecords(ctx, tx, e.inserts, e.now); err != nil {
		return err
	}
	if err := copyRefs(ctx, tx, refs); err != nil {
		return err
	}
	if err := copyHeld(ctx, tx, e.batch.Held); err != nil {
		return err
	}
	return copyOutbox(ctx, tx, e.outbox)
}

func copyRecords(ctx context.Context, tx pgx.Tx, rows []row, now time.Time) error {
	columns := []string{"collection", "did", "rkey", "cid", "rev", "version", "sort_key", "indexed_at", "created_at", "filter", "value", "targets"}
	return copyTo(ctx, tx, "records", columns, len(rows), func(i int, values []any) []any {
		r := &rows[i]
		return append(values, string(r.Key.Collection), string(r.Key.DID), string(r.Key.Rkey), string(r.CID), string(r.Rev),
			r.version, sortKey(r.CreatedAt, now), now, r.created(), r.prepared.filter, r.JSON, r.prepared.hashes)
	})
}

// ref is a row of refs to add.
type ref struct {
	hash int64
	*target
	*row
}

// arrange begins to bring what is copied into the order of the indexes that it goes into,
// which are walked once then and not at random: a tenth more records a second. What it
// returns waits for that, and gives the references of new and changed records.
func (e *effect) arrange() (refs func() []ref) {
	arranged := make(chan []ref, 1)
	go func() {
		slices.SortFunc(e.inserts, func(a, b row) int {
			return cmp.Or(cmp.Compare(a.Key.Collection, b.Key.Collection), cmp.Compare(a.Key.DID, b.Key.DID), cmp.Compare(a.Key.Rkey, b.Key.Rkey))
		})
		arranged <- sortedRefs(e.inserts, e.updates)
	}()
	return func() []ref { return <-arranged }
}

func sortedRefs(changed ...[]row) []ref {
	n := 0
	for _, rows := range changed {
		for i := range rows {
			n += len(rows[i].prepared.targets)
		}
	}
	refs := make([]ref, 0, n)
	for _, rows := range changed {
		for i := range rows {
			targets := rows[i].prepared.targets
			for j := range targets {
				refs = append(refs, ref{hash: targets[j].hash, target: &targets[j], row: &rows[i]})
			}
		}
	}
	slices.SortFunc(refs, func(a, b ref) int { return cmp.Compare(a.hash, b.hash) })
	return refs
}

func copyRefs(ctx context.Context, tx pgx.Tx, refs []ref) error {
	columns := []string{"target_hash", "collection", "did", "rkey", "path", "target"}
	return copyTo(ctx, tx, "refs", columns, len(refs), func(i int, values []any) []any {
		r := &refs[i]
		return append(values, r.hash, string(r.Key.Collection), string(r.Key.DID), string(r.Key.Rkey), r.Path, r.Target)
	})
}

func copyOutbox(ctx context.Context, tx pgx.Tx, rows []outboxRow) error {
	columns := []string{"target", "version", "collection", "did", "rkey"}
	return copyTo(ctx, tx, "outbox", columns, len(rows), func(i int, values []any) []any {
		r := &rows[i]
		return append(values, string(r.target), r.version, string(r.key.Collection), string(r.key.DID), string(r.key.Rkey))
	})
}

// copyTo adds n rows to a table; value appends those of the ith to what it is given.
func copyTo(ctx context.Context, tx pgx.Tx, table string, columns []string, n int, value func(i int, values []any) []any) error {
	if n == 0 {
		return nil
	}
	source := &copySource{rows: n, value: value}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{table}, columns, source); err != nil {
		return fmt.Errorf("add %d rows to %s: %w", n, table, err)
	}
	return nil
}

// copySource is a [pgx.CopyFromSource] that uses one slice for all rows.
type copySource struct {
	rows, next int
	value      func(i int, values []any) []any
	values     []any
}

// Next goes to the next row.
func (c *copySource) Next() bool {
	c.next++
	return c.next <= c.rows
}

// Values are those of the present row.
func (c *copySource) Values() ([]any, error) {
	c.values = c.value(c.next-1, c.values[:0])
	return c.values, nil
}

// Err is nil: the rows are in memory.
func (c *copySource) Err() error { return nil }
