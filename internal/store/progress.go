package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// Progress is how much there is to fetch, and what stands in the way.
type Progress struct {
	Waiting   int            // repositories to be fetched, in all
	Due       int            // of them now
	Failing   int            // of them after at least one failure
	Resyncing int            // being fetched
	Hosts     []HostFailures // where they fail, the worst first; 20 at most
	NextDue   time.Time      // when the next one that is not due will be; zero without
}

// HostFailures are the repositories whose last attempt failed at one host.
type HostFailures struct {
	Host      string
	Repos     int
	LastError string // one of them
}

// Progress counts row by row: call it at intervals, not for every request.
func (r *Resyncs) Progress(ctx context.Context) (p Progress, err error) {
	var next *time.Time
	err = r.pool.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE due_at <= now()), count(*) FILTER (WHERE attempts > 0),
			min(due_at) FILTER (WHERE due_at > now()), (SELECT count(*) FROM repos WHERE sync = 'resyncing')
		FROM resyncs`).Scan(&p.Waiting, &p.Due, &p.Failing, &next, &p.Resyncing)
	if err != nil {
		return Progress{}, fmt.Errorf("count the repositories to fetch: %w", ended(ctx, err))
	}
	if next != nil {
		p.NextDue = *next
	}
	p.Hosts, err = collect(ctx, r.pool, pgx.RowToStructByPos[HostFailures], `
		SELECT host, count(*), max(error) FROM resyncs WHERE attempts > 0 GROUP BY host ORDER BY 2 DESC, 1 LIMIT 20`)
	if err != nil {
		return Progress{}, fmt.Errorf("count the failures by host: %w", err)
	}
	return p, nil
}

// Discovery is how far the search for repositories that have records of a
// collection has come.
type Discovery struct {
	Collection syntax.NSID
	Host       string // that is asked, and by which method
	Method     string
	Cursor     string // from which to go on there; empty at the beginning
	Found      int
	StartedAt  time.Time // tells one search from the next; zero for a new one
	FinishedAt time.Time // zero while it goes on
}

// ErrRestarted says that a search has been started anew since: read where it is
// with [Resyncs.Discoveries], and go on from there.
var ErrRestarted = errors.New("the search for repositories was started anew")

// Discoveries returns all searches, by collection.
func (r *Resyncs) Discoveries(ctx context.Context) ([]Discovery, error) {
	list, err := collect(ctx, r.pool, scanDiscovery,
		"SELECT collection, host, method, cursor, found, started_at, finished_at FROM discoveries ORDER BY collection")
	if err != nil {
		return nil, fmt.Errorf("read the searches for repositories: %w", err)
	}
	return list, nil
}

func scanDiscovery(row pgx.CollectableRow) (d Discovery, err error) {
	var finished *time.Time
	err = row.Scan(&d.Collection, &d.Host, &d.Method, &d.Cursor, &d.Found, &d.StartedAt, &finished)
	if finished != nil {
		d.FinishedAt = *finished
	}
	return d, err
}

// SaveDiscovery stores how far a search has come, or begins one. It fails with
// [ErrRestarted] where there is a search of the collection that was started at
// another time.
func (r *Resyncs) SaveDiscovery(ctx context.Context, d Discovery) error {
	tag, err := r.pool.Exec(ctx, `
		INSERT INTO discoveries (collection, host, method, cursor, found, started_at, finished_at)
		VALUES ($1, $2, $3, $4, $5, coalesce($6, now()), $7)
		ON CONFLICT (collection) DO UPDATE SET host = excluded.host, method = excluded.method, cursor = excluded.cursor,
			found = excluded.found, finished_at = excluded.finished_at
		WHERE discoveries.started_at = excluded.started_at`,
		d.Collection, text(d.Host), text(d.Method), text(d.Cursor), d.Found, known(d.StartedAt), known(d.FinishedAt))
	if err != nil {
		return fmt.Errorf("save the search for repositories with %s: %w", d.Collection, ended(ctx, err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("search for repositories with %s: %w", d.Collection, ErrRestarted)
	}
	return nil
}

// known is nil for the zero time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

const restartDiscoveries = `
	UPDATE discoveries SET started_at = greatest(clock_timestamp(), started_at + interval '1 microsecond'),
		finished_at = NULL, found = 0, host = '', method = '', cursor = ''`

// RestartDiscoveries starts the searches for collections anew, or all that there
// are if none is named. A search that does not exist yet is not made.
func (r *Resyncs) RestartDiscoveries(ctx context.Context, collections ...syntax.NSID) error {
	var err error
	if len(collections) == 0 {
		_, err = r.pool.Exec(ctx, restartDiscoveries)
	} else {
		_, err = r.pool.Exec(ctx, restartDiscoveries+" WHERE collection = ANY ($1::text[])", collections)
	}
	if err != nil {
		return fmt.Errorf("start the search for repositories anew: %w", ended(ctx, err))
	}
	return nil
}

// Resyncing returns the repositories that are marked as being fetched.
func (w *Writer) Resyncing(ctx context.Context) ([]syntax.DID, error) {
	dids, err := collect(ctx, w.pool, pgx.RowTo[syntax.DID], "SELECT did FROM repos WHERE sync = 'resyncing' ORDER BY did")
	if err != nil {
		return nil, fmt.Errorf("read which repositories were being fetched: %w", err)
	}
	return dids, nil
}
