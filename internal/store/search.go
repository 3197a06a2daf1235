package store

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// Incomplete returns, of repositories that a search has found, those to be fetched:
// that are not known to be indexed whole since the given time, and that do not wait
// to be fetched already. Those of deleted accounts are not among them.
func (r *Resyncs) Incomplete(ctx context.Context, dids []syntax.DID, since time.Time) ([]syntax.DID, error) {
	list, err := collect(ctx, r.pool, pgx.RowTo[syntax.DID], `
		SELECT did FROM unnest($1::text[]) AS found (did)
		WHERE NOT EXISTS (SELECT FROM resyncs WHERE resyncs.did = found.did)
			AND NOT EXISTS (SELECT FROM repos WHERE repos.did = found.did
				AND (sync = 'synchronized' AND complete AND complete_at >= $2 OR status = '`+StatusDeleted+`'))
		ORDER BY did`, dids, since)
	if err != nil {
		return nil, fmt.Errorf("read which of %d repositories are whole: %w", len(dids), err)
	}
	return list, nil
}

// Completed counts the repositories that were fetched whole, or followed from their
// first commit on, within the last while.
func (r *Resyncs) Completed(ctx context.Context, within time.Duration) (n int, err error) {
	err = r.pool.QueryRow(ctx, "SELECT count(*) FROM repos WHERE complete_at > now() - $1::interval", within).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count the repositories that became whole: %w", ended(ctx, err))
	}
	return n, nil
}

// Attempt is how the fetch of a waiting repository has fared so far.
type Attempt struct {
	DID         syntax.DID
	Failed      int    // attempts
	Host, Cause string // of the last failure
}

// Waiting returns, of the given repositories, those that wait to be fetched.
func (r *Resyncs) Waiting(ctx context.Context, dids []syntax.DID) (map[syntax.DID]Attempt, error) {
	rows, err := collect(ctx, r.pool, pgx.RowToStructByPos[Attempt],
		"SELECT did, attempts, host, error FROM resyncs WHERE did = ANY ($1::text[])", dids)
	if err != nil {
		return nil, fmt.Errorf("read which of %d repositories wait: %w", len(dids), err)
	}
	list := make(map[syntax.DID]Attempt, len(rows))
	for _, a := range rows {
		list[a.DID] = a
	}
	return list, nil
}

// HasWriter tells whether a process holds the writer's lock, and so carries requests out.
func (r *Resyncs) HasWriter(ctx context.Context) (held bool, err error) {
	err = r.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
			WHERE locktype = 'advisory' AND granted AND datname = current_database() AND objsubid = 1
				AND classid::bigint << 32 | objid::bigint = $1)`, writerLock).Scan(&held)
	if err != nil {
		return false, fmt.Errorf("look for a writer: %w", ended(ctx, err))
	}
	return held, nil
}
