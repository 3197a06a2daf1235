package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Get returns a record, or [ErrNotFound].
//
// Gets that are asked for while others are under way wait for these to come back, and
// then go to PostgreSQL together, since a round trip costs both sides several times
// what finding the row does. An idle reader sends each at once.
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

const (
	getsTogether = 32 // at most, so that a large record holds up few others

	// getsPatience is how long others wait for a round trip that takes longer than it
	// should. Usual ones end in a tenth of it, also on a machine with much to do.
	getsPatience = 5 * time.Millisecond
)

// gets gathers what is asked for during a round trip. There is one at a time: many
// small ones at once have all sides change between them rather than work. Another
// is made beside it where there is enough for both, or where the first does not end.
type gets struct {
	mu      sync.Mutex
	waiting []*get
	trips   int  // under way
	begun   int  // ever
	watched bool // as it is while any wait
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
	if len(g.waiting) > g.trips*getsTogether {
		g.start(r)
	}
	if !g.watched {
		g.watch(r)
	}
	g.mu.Unlock()
	select {
	case <-q.done:
		return q.found, q.err
	case <-ctx.Done():
		return nil, ended(ctx, ctx.Err())
	}
}

// start has one more goroutine make round trips, if there may be one. The caller holds mu.
func (g *gets) start(r *Reader) {
	if g.trips < max(2, runtime.GOMAXPROCS(0)) {
		g.trips++
		go g.serve(r)
	}
}

// watch makes sure that a round trip without end keeps nobody waiting. The caller holds mu.
func (g *gets) watch(r *Reader) {
	g.watched = true
	begun := g.begun
	time.AfterFunc(getsPatience, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.watched = false; len(g.waiting) == 0 {
			return
		}
		if g.begun == begun {
			g.start(r)
		}
		g.watch(r)
	})
}

// serve makes round trips for as long as there are questions.
func (g *gets) serve(r *Reader) {
	for asked := g.take(); len(asked) > 0; asked = g.take() {
		r.answer(asked)
	}
}

// take returns what the next round trip is for. If that is nothing, there is none.
func (g *gets) take() []*get {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), getsTogether)
	if n == 0 {
		g.trips--
	} else {
		g.begun++
	}
	asked := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return asked
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

// fetch reads all that is asked for in one round trip, with a statement for each
// collection.
func (r *Reader) fetch(ctx context.Context, asked []*get) error {
	if len(asked) == 1 {
		q := r.getStatement(ctx, asked[0].key)
		found, err := r.collect(ctx, q)
		asked[0].found = found
		return err
	}
	groups := map[syntax.NSID][]*get{}
	for _, g := range asked {
		groups[g.key.Collection] = append(groups[g.key.Collection], g)
	}
	batch := &pgx.Batch{}
	for collection, group := range groups {
		q := r.getsStatement(ctx, collection, group)
		batch.Queue(q.String(), q.args...).Query(func(rows pgx.Rows) error { return share(rows, group) })
	}
	return ended(ctx, r.pool.SendBatch(ctx, batch).Close())
}

// share gives each question what was found for it.
func share(rows pgx.Rows, asked []*get) error {
	var nth int64
	for rows.Next() {
		rec, err := scanRecord(rows, &nth)
		if err != nil {
			return err
		}
		asked[nth-1].found = []record.Record{rec}
	}
	return rows.Err()
}

func (r *Reader) getStatement(ctx context.Context, key record.Key) *statement {
	q := &statement{}
	q.write("SELECT ", recordColumns, " FROM records r WHERE r.collection = ", r.collection(ctx, q, key.Collection),
		" AND r.did = ", q.arg(key.DID), " AND r.rkey = ", q.arg(key.Rkey), " AND ", ofActive)
	return q
}

// getsStatement asks for many at once. The selects around its parameters hide their
// values from the planner: a plan for these very keys can then be no better than the
// one that is kept, and making it would cost more than the keys do. OFFSET 0 has each
// key looked up.
func (r *Reader) getsStatement(ctx context.Context, collection syntax.NSID, asked []*get) *statement {
	q, n := &statement{}, names{}
	for _, g := range asked {
		n.add(g.key)
	}
	q.write("SELECT ", recordColumns, ", k.nth FROM unnest((SELECT ", q.arg(n.dids), "::text[]), (SELECT ", q.arg(n.rkeys), "::text[]))",
		" WITH ORDINALITY AS k (did, rkey, nth) CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.collection = ", r.collection(ctx, q, collection),
		" AND r.did = k.did AND r.rkey = k.rkey AND ", ofActive, " OFFSET 0) r")
	return q
}
