package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Reader answers questions about records. Those of inactive repositories are not
// there for it. It works on any pool, also one of a read replica.
type Reader struct {
	pool *pgxpool.Pool
	gets gets

	mu          sync.Mutex
	layouts     map[syntax.NSID]layout // of the collections with a partition
	layoutsRead time.Time
}

// NewReader makes a reader.
func NewReader(pool *pgxpool.Pool) *Reader { return &Reader{pool: pool} }

// ofActive leaves out the records of inactive repositories. OFFSET 0 keeps the
// planner from making a join of it: it expects the join to remove all records of
// a given repository, and then rather sorts the whole collection than use an index.
const ofActive = "NOT EXISTS (SELECT FROM repos WHERE repos.did = r.did AND NOT repos.active OFFSET 0)"

// Ping asks PostgreSQL whether it answers.
func (r *Reader) Ping(ctx context.Context) error {
	if err := r.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping PostgreSQL: %w", ended(ctx, err))
	}
	return nil
}

// Load returns the records that are there among those asked for.
func (r *Reader) Load(ctx context.Context, keys []record.Key) (map[record.Key]record.Record, error) {
	loaded := make(map[record.Key]record.Record, len(keys))
	for collection, n := range byCollection(keys) {
		q := &statement{mode: planned}
		q.write("SELECT ", recordColumns, " FROM unnest(", q.arg(n.dids), "::text[], ", q.arg(n.rkeys), "::text[]) AS k (did, rkey)",
			" JOIN records r ON r.did = k.did AND r.rkey = k.rkey WHERE r.collection = ", r.collection(ctx, q, collection), " AND ", ofActive)
		found, err := r.collect(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("load %d records of %s: %w", len(n.dids), collection, err)
		}
		for _, rec := range found {
			loaded[rec.Key] = rec
		}
	}
	return loaded, nil
}

// Deleted tells which of some accounts are deleted.
func (r *Reader) Deleted(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error) {
	found, err := collect(ctx, r.pool, pgx.RowTo[syntax.DID],
		"SELECT did FROM repos WHERE did = ANY ($1::text[]) AND NOT active AND status = '"+StatusDeleted+"'", planned, dids)
	if err != nil {
		return nil, fmt.Errorf("read which of %d accounts are deleted: %w", len(dids), err)
	}
	deleted := make(map[syntax.DID]bool, len(found))
	for _, did := range found {
		deleted[did] = true
	}
	return deleted, nil
}

// Inactive tells which of some accounts are not to be seen.
func (r *Reader) Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error) {
	found, err := collect(ctx, r.pool, pgx.RowTo[syntax.DID], "SELECT did FROM repos WHERE did = ANY ($1::text[]) AND NOT active", planned, dids)
	if err != nil {
		return nil, fmt.Errorf("read which of %d accounts are inactive: %w", len(dids), err)
	}
	inactive := make(map[syntax.DID]bool, len(found))
	for _, did := range found {
		inactive[did] = true
	}
	return inactive, nil
}

// Present tells which of the records are there, without reading them.
func (r *Reader) Present(ctx context.Context, keys []record.Key) (map[record.Key]bool, error) {
	present := make(map[record.Key]bool, len(keys))
	for collection, n := range byCollection(keys) {
		q := &statement{mode: planned}
		q.write("SELECT r.collection, r.did, r.rkey FROM unnest(", q.arg(n.dids), "::text[], ", q.arg(n.rkeys), "::text[]) AS k (did, rkey)",
			" JOIN records r ON r.did = k.did AND r.rkey = k.rkey WHERE r.collection = ", r.collection(ctx, q, collection), " AND ", ofActive)
		found, err := collect(ctx, r.pool, scanKey, q.String(), q.arguments()...)
		if err != nil {
			return nil, fmt.Errorf("look for %d records of %s: %w", len(n.dids), collection, err)
		}
		for _, key := range found {
			present[key] = true
		}
	}
	return present, nil
}

// Scan walks through a collection in the order of DIDs and record keys: it returns
// up to limit records after a given one, of which only DID and record key count;
// begin with the zero Key. Fewer than limit are the last.
func (r *Reader) Scan(ctx context.Context, collection syntax.NSID, after record.Key, limit int) ([]record.Record, error) {
	q := &statement{}
	q.write("SELECT ", recordColumns)
	r.scanFrom(ctx, q, collection, after, limit)
	found, err := r.collect(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", collection, err)
	}
	return found, nil
}

// ScanVersions is [Reader.Scan] without values: for comparing with a projection,
// which has to have each record in this version or, as [Outbox] says, a newer one.
func (r *Reader) ScanVersions(ctx context.Context, collection syntax.NSID, after record.Key, limit int) ([]record.Pending, error) {
	q := &statement{}
	q.write("SELECT 0::bigint, r.version, r.collection, r.did, r.rkey")
	r.scanFrom(ctx, q, collection, after, limit)
	found, err := collect(ctx, r.pool, scanPending, q.String(), q.arguments()...)
	if err != nil {
		return nil, fmt.Errorf("scan the versions of %s: %w", collection, err)
	}
	return found, nil
}

func (r *Reader) scanFrom(ctx context.Context, q *statement, collection syntax.NSID, after record.Key, limit int) {
	q.write(" FROM records r WHERE r.collection = ", r.collection(ctx, q, collection),
		" AND (r.did, r.rkey) > (", q.arg(after.DID), ", ", q.arg(after.Rkey), ") AND ", ofActive,
		" ORDER BY r.did, r.rkey LIMIT ", q.arg(limit))
}

func (r *Reader) collect(ctx context.Context, q *statement) ([]record.Record, error) {
	scan := func(row pgx.CollectableRow) (record.Record, error) { return scanRecord(row) }
	return collect(ctx, r.pool, scan, q.String(), q.arguments()...)
}

// scanBytes bounds a page of [Reader.ScanPage], as the values are stored: packed.
const scanBytes = 2 << 20

// ScanPage is [Reader.Scan] in pages that are also bounded in bytes. No records means
// the end.
func (r *Reader) ScanPage(ctx context.Context, collection syntax.NSID, after record.Key, limit int) ([]record.Record, error) {
	q := &statement{}
	q.write("SELECT ", strings.ReplaceAll(recordColumns, "r.", "p."), " FROM (SELECT ", recordColumns,
		", sum(pg_column_size(r.value)) OVER (ORDER BY r.did, r.rkey ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes")
	r.scanFrom(ctx, q, collection, after, limit)
	q.write(") p WHERE bytes IS NULL OR bytes < ", q.arg(scanBytes), " ORDER BY p.did, p.rkey")
	found, err := r.collect(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", collection, err)
	}
	return found, nil
}

// CountOf counts the records of collections, those of inactive repositories included.
func (r *Reader) CountOf(ctx context.Context, collections []syntax.NSID) (n int64, err error) {
	err = r.pool.QueryRow(ctx, "SELECT count(*) FROM records WHERE collection = ANY ($1::text[])", collections).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count records: %w", ended(ctx, err))
	}
	return n, nil
}
