package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Rebuild is a projection that is being built anew beside the served one.
type Rebuild struct {
	Target    record.Target
	Name      string // of what is being built, chosen by whoever began
	StartedAt time.Time
	Done      int64      // records, up to After
	Total     int64      // records, as counted at the beginning
	After     record.Key // in the order of collections, DIDs and record keys
	Filled    bool       // what was there at the beginning is in it
	Promoted  bool       // it is the served one
	Ended     bool       // what still changes does not concern it any more, see [Rebuilds.End]
}

// Twin is the target under which the outbox keeps what has changed for a rebuild:
// from [Rebuilds.Begin] to [Rebuilds.End] each row of the target has one, written
// in the same transaction. Whoever rebuilds claims them.
func Twin(target record.Target) record.Target { return target + "+" }

// Rebuilds keeps which projections are being built anew, and how far that is.
type Rebuilds struct {
	pool *pgxpool.Pool
}

// NewRebuilds takes a pool that may write.
func NewRebuilds(pool *pgxpool.Pool) *Rebuilds { return &Rebuilds{pool: pool} }

// ErrRebuilding is returned by [Rebuilds.Begin] where the target is being rebuilt already.
var ErrRebuilding = errors.New("the target is being rebuilt already")

// Begin notes that a projection is being built anew. Every change that commits
// after it has a twin in the outbox; every one that committed before is seen by
// whoever reads the records after it.
func (r *Rebuilds) Begin(ctx context.Context, target record.Target, name string, total int64) error {
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		// Transactions of the writer hold this row from their beginning: those that have
		// not seen the rebuild have ended, and the next ones wait, and see it.
		if _, err := tx.Exec(ctx, "SELECT FROM clock FOR UPDATE"); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "INSERT INTO rebuilds (target, name, total) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", target, name, total)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrRebuilding
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("begin to rebuild %s: %w", target, ended(ctx, err))
	}
	return nil
}

// Get returns the rebuild of a target, or [ErrNotFound].
func (r *Rebuilds) Get(ctx context.Context, target record.Target) (Rebuild, error) {
	b := Rebuild{Target: target}
	err := r.pool.QueryRow(ctx, `
		SELECT name, started_at, done, total, collection, did, rkey, filled, promoted, ended FROM rebuilds WHERE target = $1`, target).
		Scan(&b.Name, &b.StartedAt, &b.Done, &b.Total, &b.After.Collection, &b.After.DID, &b.After.Rkey, &b.Filled, &b.Promoted, &b.Ended)
	if errors.Is(err, pgx.ErrNoRows) {
		return Rebuild{}, fmt.Errorf("rebuild of %s: %w", target, ErrNotFound)
	}
	if err != nil {
		return Rebuild{}, fmt.Errorf("read the rebuild of %s: %w", target, ended(ctx, err))
	}
	return b, nil
}

// Save notes how far a rebuild has come.
func (r *Rebuilds) Save(ctx context.Context, b Rebuild) error {
	_, err := r.pool.Exec(ctx, `
		UPDATE rebuilds SET done = $2, collection = $3, did = $4, rkey = $5, filled = $6, promoted = $7 WHERE target = $1`,
		b.Target, b.Done, b.After.Collection, b.After.DID, b.After.Rkey, b.Filled, b.Promoted)
	if err != nil {
		return fmt.Errorf("save the rebuild of %s: %w", b.Target, ended(ctx, err))
	}
	return nil
}

// End says that no more twins are needed. Those that are there stay, to be claimed
// before [Rebuilds.Forget].
func (r *Rebuilds) End(ctx context.Context, target record.Target) error {
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT FROM clock FOR UPDATE"); err != nil { // see Begin
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE rebuilds SET ended = true WHERE target = $1", target)
		return err
	})
	if err != nil {
		return fmt.Errorf("end the rebuild of %s: %w", target, ended(ctx, err))
	}
	return nil
}

// Forget ends a rebuild if that has not been done, and drops the twins that are left.
func (r *Rebuilds) Forget(ctx context.Context, target record.Target) error {
	if err := r.End(ctx, target); err != nil {
		return err
	}
	for _, statement := range []string{
		"DELETE FROM outbox WHERE target = $1 || '+'", "DELETE FROM sweeps WHERE target = $1 || '+'", "DELETE FROM rebuilds WHERE target = $1",
	} {
		if _, err := r.pool.Exec(ctx, statement, target); err != nil {
			return fmt.Errorf("forget the rebuild of %s: %w", target, ended(ctx, err))
		}
	}
	return nil
}

// queueRebuilds asks which targets are being rebuilt. It comes after the version was
// drawn, which is what [Rebuilds.Begin] waits for.
func (p *present) queueRebuilds(batch *pgx.Batch) {
	batch.Queue("SELECT target FROM rebuilds WHERE NOT ended").Query(func(rows pgx.Rows) error {
		targets, err := pgx.CollectRows(rows, pgx.RowTo[record.Target])
		p.rebuilds = targets
		return err
	})
}

// addTwins doubles the outbox rows of targets that are being rebuilt.
func (e *effect) addTwins(rebuilds []record.Target) {
	for _, target := range rebuilds {
		for _, row := range e.outbox {
			if row.target == target {
				row.target = Twin(target)
				e.outbox = append(e.outbox, row)
			}
		}
	}
}

// lockTries leave the server time to notice that a process before has died.
const lockTries = 5

// Lock makes sure that one process alone rebuilds a target, or returns
// [ErrRebuilding]. The lock ends with release or with the process.
func (r *Rebuilds) Lock(ctx context.Context, target record.Target) (release func(), err error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock the rebuild of %s: %w", target, ended(ctx, err))
	}
	var held bool
	for range lockTries {
		err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ' rebuild ' || $1::text, 0))", target).Scan(&held)
		if err != nil || held {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(lockPoll):
		}
	}
	if err == nil && !held {
		err = ErrRebuilding
	}
	if err != nil {
		conn.Release()
		return nil, fmt.Errorf("lock the rebuild of %s: %w", target, ended(ctx, err))
	}
	return func() {
		_ = conn.Conn().Close(context.WithoutCancel(ctx)) // and the lock with it
		conn.Release()
	}, nil
}
