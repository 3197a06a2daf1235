package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// An answer that was worked out before can be given again for as long as nothing that
// it follows from has changed. Each transaction of the writer notes, for each
// collection that it touches, its version in the table changed. An answer is labelled
// with the clock as it was before the answer was worked out, on the same server: so
// whatever was changed since has a greater version.

// Names in the table changed that are no collections.
const (
	accountsChanged = ""  // an account became active or inactive
	othersChanged   = "*" // any collection without a partition
)

// writeChanged notes which collections a batch touches, also those whose projections
// are to be written again, and that accounts came or went.
func (e *effect) writeChanged(batch *pgx.Batch) {
	seen := map[syntax.NSID]bool{}
	for i := range e.inserts {
		seen[e.inserts[i].Key.Collection] = true
	}
	for i := range e.updates {
		seen[e.updates[i].Key.Collection] = true
	}
	for _, key := range e.deletes {
		seen[key.Collection] = true
	}
	for _, row := range e.outbox {
		seen[row.key.Collection] = true
	}
	if len(e.flips) > 0 || len(e.arrived) > 0 { // the records of an account, or who refers to an arrival, may be any
		seen[accountsChanged] = true
	}
	if len(seen) == 0 {
		return
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, string(name))
	}
	slices.Sort(names)
	batch.Queue(`
		INSERT INTO changed (name, version)
		SELECT DISTINCT CASE WHEN n = '' OR EXISTS (SELECT FROM partitions WHERE collection = n) THEN n ELSE '`+othersChanged+`' END, $2::bigint
		FROM unnest($1::text[]) AS n
		ON CONFLICT (name) DO UPDATE SET version = excluded.version`, names, e.version)
}

// Versions tell when what answers follow from was changed last, as it was at one moment.
type Versions struct {
	Clock int64 // the last version there was
	last  map[syntax.NSID]int64
}

// Changed tells whether answers with a label that follow from collections may be out
// of date; nil stands for all collections, and names of [Changes.Note] may be among them.
func (v Versions) Changed(label int64, collections []syntax.NSID) bool {
	if label > v.Clock || v.last[accountsChanged] > label {
		return true // a greater label is of a server that is ahead of ours, or of another history
	}
	if collections == nil {
		for _, version := range v.last {
			if version > label {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(collections, func(c syntax.NSID) bool { return v.last[c] > label })
}

// Hidden tells whether an account became active or inactive since a label.
func (v Versions) Hidden(label int64) bool { return label > v.Clock || v.last[accountsChanged] > label }

// Changes tells what has changed. Ask it on the pool that answers are read from.
type Changes struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	next    *versionsAsked // who asks now waits for this
	running bool
}

type versionsAsked struct {
	done  chan struct{}
	found Versions
	err   error
}

// NewChanges makes a source of versions.
func NewChanges(pool *pgxpool.Pool) *Changes { return &Changes{pool: pool} }

const changesTime = 2 * time.Second

// Versions reads the versions, from a question to PostgreSQL that begins after the
// call: so it knows of all that was committed before. Calls that come while a question
// is under way share the next one.
func (c *Changes) Versions(ctx context.Context) (Versions, error) {
	c.mu.Lock()
	if c.next == nil {
		c.next = &versionsAsked{done: make(chan struct{})}
	}
	asked := c.next
	if !c.running {
		c.running = true
		go c.serve(context.WithoutCancel(ctx))
	}
	c.mu.Unlock()
	select {
	case <-asked.done:
		return asked.found, asked.err
	case <-ctx.Done():
		return Versions{}, ctx.Err()
	}
}

func (c *Changes) serve(ctx context.Context) {
	for {
		c.mu.Lock()
		asked := c.next
		c.next = nil
		c.running = asked != nil
		c.mu.Unlock()
		if asked == nil {
			return
		}
		asking, cancel := context.WithTimeout(ctx, changesTime)
		asked.found, asked.err = c.read(asking)
		cancel()
		close(asked.done)
	}
}

func (c *Changes) read(ctx context.Context) (Versions, error) {
	v := Versions{Clock: -1, last: map[syntax.NSID]int64{}}
	rows, err := c.pool.Query(ctx, "SELECT NULL, version FROM clock UNION ALL SELECT name, version FROM changed")
	if err == nil {
		var name *syntax.NSID
		var version int64
		_, err = pgx.ForEachRow(rows, []any{&name, &version}, func() error {
			if name == nil {
				v.Clock = version
			} else {
				v.last[*name] = version
			}
			return nil
		})
	}
	if err != nil {
		return Versions{}, fmt.Errorf("read what has changed: %w", ended(ctx, err))
	}
	return v, nil
}

// pendingLooked is how many rows of the outbox are looked at to tell which collections
// they are of; with more of them, a projection is too busy to say.
const pendingLooked = 1000

// Settled tells of which collections a projection has all that was committed before
// the call; every if it has everything, and none if nothing can be said.
func (c *Changes) Settled(ctx context.Context, target record.Target) (settled func(syntax.NSID) bool, every bool, err error) {
	var rows, sweeps int64
	var pending []syntax.NSID
	err = c.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(array_agg(DISTINCT collection), '{}'), (SELECT count(*) FROM (SELECT FROM sweeps WHERE target = $1 LIMIT 1) s)
		FROM (
			(SELECT collection FROM outbox WHERE target = $1 AND claimed_until IS NOT NULL LIMIT $2)
			UNION ALL (SELECT collection FROM outbox WHERE target = $1 AND claimed_until IS NULL LIMIT $2)) p`,
		planned, target, pendingLooked).Scan(&rows, &pending, &sweeps)
	if err != nil {
		return nil, false, fmt.Errorf("read what %s has yet to do: %w", target, ended(ctx, err))
	}
	busy := rows >= pendingLooked || sweeps > 0
	return func(c syntax.NSID) bool { return !busy && !slices.Contains(pending, c) }, rows == 0 && sweeps == 0, nil
}

// Note says that something which is computed from records was computed anew, under a
// name that answers can follow from. Names are no NSIDs: they have no dot.
func (c *Changes) Note(ctx context.Context, name syntax.NSID) error {
	_, err := c.pool.Exec(ctx, drawVersion+`
		INSERT INTO changed (name, version) SELECT $1, version FROM drawn
		ON CONFLICT (name) DO UPDATE SET version = excluded.version`, name)
	if err != nil {
		return fmt.Errorf("note that %s is new: %w", name, ended(ctx, err))
	}
	return nil
}
