package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Outbox is the durable list of what each projection has yet to catch up with: a
// row for each change of a record and each projection that follows it. A row
// stays until its projection has been written.
//
// Whoever carries a row out reads the record as it is then, and writes that with
// the row's version or the record's, whichever is greater: a row can be newer than
// the record, as when its repository came back, or a record that it refers to
// arrived. If the record is gone, the row's version is that of its removal.
type Outbox struct {
	pool *pgxpool.Pool
}

// NewOutbox makes an outbox on a pool that may write.
func NewOutbox(pool *pgxpool.Pool) *Outbox { return &Outbox{pool: pool} }

// planned asks for a plan of the present table and parameters instead of one kept
// from earlier: the outbox is empty one minute and holds millions the next.
const planned = pgx.QueryExecModeCacheDescribe

// outboxSettings are those of every transaction on the outbox. PostgreSQL is to take
// rows from an index one by one, in its order: it would rather collect all rows to
// sort them if it believes them to be few, and how many there are is what its
// statistics of a queue never know. And it need not wait for the disk: after a crash
// of the server a row may be there once more, to be carried out again.
const outboxSettings = `SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
	SET LOCAL enable_mergejoin = off; SET LOCAL synchronous_commit = off`

// transact runs do in a transaction of its own.
func (o *Outbox) transact(ctx context.Context, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, outboxSettings); err != nil {
			return err
		}
		return do(tx)
	})
}

// Claim leases up to limit rows of a projection: the oldest whose lease has run
// out, then the oldest that nobody has had. Nobody else gets them before the lease
// is over. No rows means that there is nothing to do at present.
func (o *Outbox) Claim(ctx context.Context, target record.Target, limit int, lease time.Duration) (claimed []record.Pending, err error) {
	err = o.transact(ctx, func(tx pgx.Tx) (err error) {
		claimed, err = collect(ctx, tx, scanPending, `
			WITH overdue AS (
				SELECT id FROM outbox WHERE target = $1 AND claimed_until < now()
				ORDER BY claimed_until LIMIT $2 FOR UPDATE SKIP LOCKED),
			ready AS (
				SELECT id FROM outbox WHERE target = $1 AND claimed_until IS NULL
				ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
			picked AS (SELECT id FROM overdue UNION ALL SELECT id FROM ready LIMIT $2)
			UPDATE outbox o SET claimed_until = now() + $3::interval, attempts = attempts + 1 FROM picked
			WHERE o.id = picked.id RETURNING o.id, o.version, o.collection, o.did, o.rkey`,
			planned, target, limit, lease)
		if err != nil || len(claimed) == limit {
			return err
		}
		unpacked, err := unpack(ctx, tx, target, limit-len(claimed), lease)
		if err != nil {
			return err
		}
		claimed = append(claimed, unpacked...)
		swept, err := sweep(ctx, tx, target, limit-len(claimed), lease)
		claimed = append(claimed, swept...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim outbox rows of %s: %w", target, ended(ctx, err))
	}
	slices.SortFunc(claimed, func(a, b record.Pending) int { return cmp.Compare(a.ID, b.ID) })
	return claimed, nil
}

func scanPending(row pgx.CollectableRow) (p record.Pending, err error) {
	err = row.Scan(&p.ID, &p.Version, &p.Key.Collection, &p.Key.DID, &p.Key.Rkey)
	return p, err
}

// Done deletes rows whose projection has been written. Newer rows of the same
// records stay.
func (o *Outbox) Done(ctx context.Context, target record.Target, rows []record.Pending) error {
	err := o.transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM outbox WHERE id = ANY ($1) AND target = $2", planned, ids(rows), target)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %d outbox rows of %s: %w", len(rows), target, ended(ctx, err))
	}
	return nil
}

// Release ends the lease of rows that could not be carried out; they may be
// claimed again after delay.
func (o *Outbox) Release(ctx context.Context, target record.Target, rows []record.Pending, delay time.Duration) error {
	err := o.transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE outbox SET claimed_until = now() + $3::interval WHERE id = ANY ($1) AND target = $2",
			planned, ids(rows), target, delay)
		return err
	})
	if err != nil {
		return fmt.Errorf("release %d outbox rows of %s: %w", len(rows), target, ended(ctx, err))
	}
	return nil
}

func ids(rows []record.Pending) []int64 {
	list := make([]int64, len(rows))
	for i, r := range rows {
		list[i] = r.ID
	}
	return list
}

// Enqueue adds rows for records, so that their projection is written again as
// they are now, or removed if they are gone: for repairs. The rows have a version of
// their own, newer than any record's: what somebody has deleted from a projection may
// have left a version behind there that is newer than the record's. Answers that were
// worked out before from these collections are not given again.
func (o *Outbox) Enqueue(ctx context.Context, target record.Target, keys []record.Key) error {
	collections, n := splitKeys(keys)
	_, err := o.pool.Exec(ctx, drawVersion+noteCollections+`
		INSERT INTO outbox (version, target, collection, did, rkey)
		SELECT version, $1, collection, did, rkey FROM drawn, unnest($2::text[], $3::text[], $4::text[]) AS k (collection, did, rkey)`,
		target, collections, n.dids, n.rkeys)
	if err != nil {
		return fmt.Errorf("enqueue %d records for %s: %w", len(keys), target, ended(ctx, err))
	}
	return nil
}

const drawVersion = "WITH drawn AS (UPDATE clock SET version = version + 1 RETURNING version)"

// noteCollections goes on with drawVersion: the collections of the second parameter
// count as changed. Whoever notes has the clock, so nobody waits for another in a circle.
const noteCollections = `, said AS (
	INSERT INTO changed (name, version)
	SELECT DISTINCT CASE WHEN EXISTS (SELECT FROM partitions p WHERE p.collection = c) THEN c ELSE '` + othersChanged + `' END, version
	FROM drawn, unnest($2::text[]) AS c
	ON CONFLICT (name) DO UPDATE SET version = excluded.version)`

// EnqueueCollections lets a projection be written again for all records of
// collections. The rows come into being as they are claimed, after those of
// present changes.
func (o *Outbox) EnqueueCollections(ctx context.Context, target record.Target, collections []syntax.NSID) error {
	_, err := o.pool.Exec(ctx, drawVersion+noteCollections+`
		INSERT INTO sweeps (version, target, collection)
		SELECT version, $1, collection FROM drawn, unnest($2::text[]) AS c (collection)`, target, collections)
	if err != nil {
		return fmt.Errorf("enqueue %d collections for %s: %w", len(collections), target, ended(ctx, err))
	}
	return nil
}

// Depth is how much a projection is behind.
type Depth struct {
	// Rows are those in the outbox, packed ones among them, counted up to [MaxDepth].
	Rows int64
	// Sweeps are those that have yet to become rows: a collection, a repository, or
	// what refers to a record.
	Sweeps int64
	// Oldest is how long the oldest of them has waited.
	Oldest time.Duration
}

// Empty tells whether the projection has caught up.
func (d Depth) Empty() bool { return d.Rows == 0 && d.Sweeps == 0 }

// MaxDepth is where [Outbox.Depth] stops counting, to cost milliseconds at most.
const MaxDepth = 100_000

// Depth tells how much a projection is behind.
func (o *Outbox) Depth(ctx context.Context, target record.Target) (Depth, error) {
	var d Depth
	var seconds float64
	err := o.pool.QueryRow(ctx, `
		SELECT least($2, (SELECT count(*) FROM (
				SELECT FROM outbox WHERE target = $1 AND claimed_until IS NOT NULL
				UNION ALL SELECT FROM outbox WHERE target = $1 AND claimed_until IS NULL LIMIT $2) counted)
				+ (SELECT coalesce(sum(packed - taken), 0) FROM sweeps WHERE target = $1 AND packed > 0)),
			(SELECT count(*) FROM (SELECT FROM sweeps WHERE target = $1 AND packed = 0 LIMIT $2) counted),
			coalesce(extract(epoch FROM clock_timestamp() - least(
				(SELECT min(enqueued_at) FROM (SELECT enqueued_at FROM outbox WHERE target = $1 AND claimed_until IS NOT NULL LIMIT $2) claimed),
				(SELECT enqueued_at FROM outbox WHERE target = $1 AND claimed_until IS NULL ORDER BY id LIMIT 1),
				(SELECT enqueued_at FROM sweeps WHERE target = $1 ORDER BY id LIMIT 1))), 0)::float8`,
		planned, target, MaxDepth).Scan(&d.Rows, &d.Sweeps, &seconds)
	if err != nil {
		return Depth{}, fmt.Errorf("read the depth of the outbox for %s: %w", target, ended(ctx, err))
	}
	d.Oldest = time.Duration(max(seconds, 0) * float64(time.Second))
	return d, nil
}

// Exceeds tells whether all projections together have more than a number of rows to
// catch up with. It costs little as long as the outbox is small.
func (o *Outbox) Exceeds(ctx context.Context, rows int64) (exceeds bool, err error) {
	err = o.pool.QueryRow(ctx, `
		WITH packed AS (SELECT coalesce(sum(packed - taken), 0) AS rows FROM sweeps WHERE packed > 0)
		SELECT CASE WHEN packed.rows > $1 THEN true
			WHEN (SELECT max(id) FROM outbox) - (SELECT min(id) FROM outbox) < $1 - packed.rows THEN false
			ELSE EXISTS (SELECT FROM outbox OFFSET $1 - packed.rows LIMIT 1) END FROM packed`, planned, rows).Scan(&exceeds)
	if err != nil {
		return false, fmt.Errorf("count the rows of the outbox: %w", ended(ctx, err))
	}
	return exceeds, nil
}

// Held returns the rows of a projection that somebody has claimed and neither
// carried out nor lost the lease of: all, or those that are left of some.
func (o *Outbox) Held(ctx context.Context, target record.Target, of []int64) ([]int64, error) {
	held, err := collect(ctx, o.pool, pgx.RowTo[int64], `
		SELECT id FROM outbox WHERE target = $1 AND claimed_until > now() AND ($2::bigint[] IS NULL OR id = ANY ($2)) ORDER BY id`,
		planned, target, of)
	if err != nil {
		return nil, fmt.Errorf("read which rows of %s are held: %w", target, err)
	}
	return held, nil
}
