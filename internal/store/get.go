package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Get returns a record, or [ErrNotFound].
//
// Gets that are asked for while others are under way go to PostgreSQL together,
// since a round trip costs both sides several times what finding the row does.
// Nothing waits for others to come: an idle reader sends each at once.
func (r *Reader) Get(ctx context.Context, key record.Key) (record.Record, error) {
	found, err := r.gets.ask(ctx, r, key)
	if err != nil {
		return record.Record{}, fmt.Errorf("read %s: %w", key, err)
	}
	if len(found) == 0 {
		return record.Record{}, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	return found[0], nil
}

const getsTogether = 32 // at most, so that a large record holds up few others

// gets gathers what is asked for while all its round trips are under way.
type gets struct {
	mu      sync.Mutex
	waiting []*get
	trips   int // under way
}

// get is a question, and after done its answer.
type get struct {
	ctx   context.Context
	key   record.Key
	found []record.Record // none or one
	err   error
	done  chan struct{}
}

func (g *gets) ask(ctx context.Context, r *Reader, key record.Key) ([]record.Record, error) {
	q := &get{ctx: ctx, key: key, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, q)
	if g.trips < max(2, runtime.GOMAXPROCS(0)) {
		g.trips++
		go g.serve(r)
	}
	g.mu.Unlock()
	select {
	case <-q.done:
		return q.found, q.err
	case <-ctx.Done():
		return nil, ended(ctx, ctx.Err())
	}
}

// serve makes round trips for as long as there are questions.
func (g *gets) serve(r *Reader) {
	for {
		g.mu.Lock()
		n := min(len(g.waiting), getsTogether)
		if n == 0 {
			g.trips--
			g.mu.Unlock()
			return
		}
		asked := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.mu.Unlock()
		r.answer(asked)
	}
}

// answer puts questions to PostgreSQL. It is cancelled once nobody waits any more.
func (r *Reader) answer(asked []*get) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(asked[0].ctx))
	defer cancel()
	var left atomic.Int64
	left.Store(int64(len(asked)))
	for _, q := range asked {
		stop := context.AfterFunc(q.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
		defer stop()
	}
	err := r.fetch(ctx, asked)
	for _, q := range asked {
		if len(asked) > 1 && err != nil && ctx.Err() == nil {
			q.err = r.fetch(q.ctx, []*get{q}) // each fails for itself alone
		} else {
			q.err = err
		}
		close(q.done)
	}
}

// fetch reads all that is asked for in one round trip, or in one statement if it is
// only one.
func (r *Reader) fetch(ctx context.Context, asked []*get) error {
	if len(asked) == 1 {
		q := r.getStatement(ctx, asked[0].key)
		found, err := r.collect(ctx, q)
		asked[0].found = found
		return err
	}
	batch := &pgx.Batch{}
	for _, g := range asked {
		q := r.getStatement(ctx, g.key)
		batch.Queue(q.String(), q.args...).Query(func(rows pgx.Rows) (err error) {
			g.found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.Record, error) { return scanRecord(row) })
			return err
		})
	}
	return ended(ctx, r.pool.SendBatch(ctx, batch).Close())
}

func (r *Reader) getStatement(ctx context.Context, key record.Key) *statement {
	q := &statement{}
	q.write("SELECT ", recordColumns, " FROM records r WHERE r.collection = ", r.collection(ctx, q, key.Collection),
		" AND r.did = ", q.arg(key.DID), " AND r.rkey = ", q.arg(key.Rkey), " AND ", ofActive)
	return q
}
