package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// Resyncs is the durable list of repositories to be fetched whole. Rows also come
// and go with [Writer.Apply]: a repository that a batch leaves desynchronized has
// one, and one that becomes synchronized loses it, unless it was asked for since
// the fetch began.
type Resyncs struct {
	pool database
}

// NewResyncs takes a pool, or a transaction, that may write.
func NewResyncs(pool database) *Resyncs { return &Resyncs{pool: pool} }

// Wanted is a repository that somebody wants fetched.
type Wanted struct {
	DID       syntax.DID
	Reason    string
	Candidate bool // it may have no record of a followed collection
}

// Due is a repository that is to be fetched now.
type Due struct {
	DID       syntax.DID
	Reason    string
	Candidate bool
	Attempts  int    // that failed
	Host      string // that the last attempt failed at
	Repo      Repo   // zero but for its DID where the repository is not followed
}

const addResyncs = `
	INSERT INTO resyncs (did, reason, candidate, asked)
	SELECT did, reason, candidate, true FROM unnest($1::text[], $2::text[], $3::boolean[]) AS w (did, reason, candidate)
	ON CONFLICT (did) DO UPDATE SET requested_at = now(), due_at = least(resyncs.due_at, now()), asked = true,
		reason = excluded.reason, candidate = resyncs.candidate AND excluded.candidate
	RETURNING (xmax = 0)`

// wantedColumns are the parameters of addResyncs: each DID once, and in order, so
// that two transactions never wait for each other.
func wantedColumns(list []Wanted) []any {
	list = slices.DeleteFunc(slices.Clone(list), func(w Wanted) bool { return len(w.DID) > maxDID })
	slices.SortStableFunc(list, func(a, b Wanted) int { return strings.Compare(string(a.DID), string(b.DID)) })
	list = slices.CompactFunc(list, func(a, b Wanted) bool { return a.DID == b.DID })
	dids, reasons, candidates := make([]string, len(list)), make([]string, len(list)), make([]bool, len(list))
	for i, w := range list {
		dids[i], reasons[i], candidates[i] = string(w.DID), text(w.Reason), w.Candidate
	}
	return []any{dids, reasons, candidates}
}

// Add asks for repositories and returns how many did not wait already; those that
// did are due now. A DID that is too long to be stored is passed over.
func (r *Resyncs) Add(ctx context.Context, wanted []Wanted) (added int, err error) {
	fresh, err := collect(ctx, r.pool, pgx.RowTo[bool], addResyncs, wantedColumns(wanted)...)
	if err != nil {
		return 0, fmt.Errorf("ask for %d repositories: %w", len(wanted), err)
	}
	for _, f := range fresh {
		if f {
			added++
		}
	}
	return added, nil
}

const addAllResyncs = `
	INSERT INTO resyncs (did, reason, asked) SELECT did, $1, true FROM repos WHERE status <> '` + StatusDeleted + `' ORDER BY did
	ON CONFLICT (did) DO UPDATE SET requested_at = now(), due_at = least(resyncs.due_at, now()), asked = true, candidate = false`

// AddAll asks for every repository that is followed and returns their number.
func (r *Resyncs) AddAll(ctx context.Context, reason string) (int, error) {
	tag, err := r.pool.Exec(ctx, addAllResyncs, text(reason))
	if err != nil {
		return 0, fmt.Errorf("ask for every repository: %w", ended(ctx, err))
	}
	return int(tag.RowsAffected()), nil
}

// Due returns repositories whose time has come, the longest due first, without
// those in except.
func (r *Resyncs) Due(ctx context.Context, limit int, except []syntax.DID) ([]Due, error) {
	if except == nil {
		except = []syntax.DID{} // not NULL
	}
	list, err := collect(ctx, r.pool, scanDue, `
		SELECT did, reason, candidate, attempts, host FROM resyncs WHERE due_at <= now() AND did <> ALL ($1::text[])
		ORDER BY due_at, did LIMIT $2`, planned, except, limit)
	if err != nil {
		return nil, fmt.Errorf("read which repositories are due: %w", err)
	}
	dids := make([]syntax.DID, len(list))
	for i := range list {
		dids[i] = list[i].DID
	}
	found, err := collect(ctx, r.pool, scanRepo, selectRepos, planned, dids)
	if err != nil {
		return nil, fmt.Errorf("read %d due repositories: %w", len(dids), err)
	}
	repos := byDID(found)
	for i := range list {
		if repo, ok := repos[list[i].DID]; ok {
			list[i].Repo = repo
		}
	}
	return list, nil
}

func scanDue(row pgx.CollectableRow) (d Due, err error) {
	err = row.Scan(&d.DID, &d.Reason, &d.Candidate, &d.Attempts, &d.Host)
	d.Repo.DID = d.DID
	return d, err
}

// Postpone counts an attempt that failed, at a host and for a cause, and sets when
// the next is due. Where the repository was asked for since the attempt began, as
// by an account that became active, it stays due: once, since the next attempt may
// fail before it begins a fetch.
func (r *Resyncs) Postpone(ctx context.Context, did syntax.DID, until time.Time, host, cause string) error {
	_, err := r.pool.Exec(ctx, `
		UPDATE resyncs SET attempts = attempts + 1, host = $3, error = $4,
			due_at = CASE WHEN requested_at > begun_at THEN due_at ELSE $2 END, begun_at = now()
		WHERE did = $1`, did, until, text(host), text(cause))
	if err != nil {
		return fmt.Errorf("postpone %s: %w", did, ended(ctx, err))
	}
	return nil
}

// Defer sets when the next attempt is due where the last one was ended early, at a
// host and for a cause, without being at fault. Otherwise it is as Postpone.
func (r *Resyncs) Defer(ctx context.Context, did syntax.DID, until time.Time, host, cause string) error {
	_, err := r.pool.Exec(ctx, `
		UPDATE resyncs SET host = $3, error = $4,
			due_at = CASE WHEN requested_at > begun_at THEN due_at ELSE $2 END, begun_at = now()
		WHERE did = $1`, did, until, text(host), text(cause))
	if err != nil {
		return fmt.Errorf("defer %s: %w", did, ended(ctx, err))
	}
	return nil
}

// Delay sets when a repository is due of which no attempt was begun. It is meant for
// short times: that the repository was asked for since is not looked at.
func (r *Resyncs) Delay(ctx context.Context, did syntax.DID, until time.Time) error {
	if _, err := r.pool.Exec(ctx, "UPDATE resyncs SET due_at = $2 WHERE did = $1", did, until); err != nil {
		return fmt.Errorf("delay %s: %w", did, ended(ctx, err))
	}
	return nil
}

// Remove gives a repository up.
func (r *Resyncs) Remove(ctx context.Context, did syntax.DID) error {
	if _, err := r.pool.Exec(ctx, "DELETE FROM resyncs WHERE did = $1", did); err != nil {
		return fmt.Errorf("remove %s from the repositories to fetch: %w", did, ended(ctx, err))
	}
	return nil
}

// writeOverrun comes before the batch's own repositories: of those that it adds,
// nothing was missed.
func (e *effect) writeOverrun(batch *pgx.Batch) {
	if e.batch.Overrun {
		batch.Queue(addAllResyncs, "events of the stream were missed")
		batch.Queue(restartDiscoveries)
	}
}

// writeResyncs keeps the list in step with the repositories of the batch.
func (e *effect) writeResyncs(batch *pgx.Batch) {
	if len(e.broken) > 0 {
		dids, reasons := make([]string, len(e.broken)), make([]string, len(e.broken))
		for i, w := range e.broken {
			dids[i], reasons[i] = string(w.DID), text(w.Reason)
		}
		batch.Queue(`INSERT INTO resyncs (did, reason) SELECT did, reason FROM unnest($1::text[], $2::text[]) AS b (did, reason)
			ON CONFLICT (did) DO NOTHING`, dids, reasons)
	}
	if len(e.begun) > 0 {
		batch.Queue("UPDATE resyncs SET begun_at = now() WHERE did = ANY ($1::text[])", e.begun)
	}
	if len(e.fetched) > 0 {
		batch.Queue("DELETE FROM resyncs WHERE did = ANY ($1::text[]) AND (begun_at IS NULL OR requested_at <= begun_at)", e.fetched)
	}
	if len(e.mended) > 0 {
		batch.Queue("DELETE FROM resyncs WHERE did = ANY ($1::text[]) AND NOT asked", e.mended)
	}
	if len(e.batch.Wanted) > 0 {
		batch.Queue(addResyncs, wantedColumns(e.batch.Wanted)...)
	}
	if len(e.batch.Hastened) > 0 {
		batch.Queue("UPDATE resyncs SET requested_at = now(), due_at = least(due_at, now()) WHERE did = ANY ($1::text[])", e.batch.Hastened)
	}
}

// decideResync notes what a repository's way from old, nil for none, means for the
// list of those to be fetched.
func (e *effect) decideResync(old, now *Repo, fetched bool) {
	did := string(now.DID)
	switch {
	case now.Sync == Desynchronized:
		e.broken = append(e.broken, Wanted{DID: now.DID, Reason: now.Reason})
	case now.Sync == Resyncing && (old == nil || old.Sync != Resyncing):
		e.begun = append(e.begun, did)
	case now.Sync == Synchronized && fetched:
		e.fetched = append(e.fetched, did)
	case now.Sync == Synchronized && (old == nil || old.Sync != Synchronized):
		e.mended = append(e.mended, did)
	}
}
