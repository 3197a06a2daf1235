package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// SyncState says whether the index has all that a repository holds.
type SyncState string

// The states of a repository.
const (
	Synchronized   SyncState = "synchronized"
	Desynchronized SyncState = "desynchronized" // a commit was missed or did not hold: fetch it whole
	Resyncing      SyncState = "resyncing"      // that is being done
)

// Repo is what is known of a repository.
type Repo struct {
	Account
	DID    syntax.DID
	Handle syntax.Handle // empty without one that holds in both directions
	PDS    string
	Sync   SyncState
	// Complete says that the index has, or had at Rev, all that the repository
	// holds: it was followed from its first commit on, or fetched whole.
	Complete  bool
	Reason    string     // why it is not synchronized
	Rev       syntax.TID // of the last commit that was applied
	CommitCID syntax.CID
	Data      syntax.CID // root of its tree
	Seen      syntax.TID // highest rev of a commit that holds, applied or not: never below Rev
	UpdatedAt time.Time

	completed bool // a batch said that it is complete
}

// RepoUpdate is what a batch says of a repository. What is nil stays as it was.
type RepoUpdate struct {
	DID syntax.DID
	// Active and Status are those of an #account event. With Seq, its sequence
	// number on [Batch.Host], one that is overtaken is skipped, see [Account.Overtaken].
	Active *bool
	Status *string
	Seq    *int64
	Time   time.Time // of the #account event; zero if not known

	Handle   *syntax.Handle // handle.invalid, or empty, for none
	PDS      *string
	Sync     *SyncState
	Complete *bool
	Reason   *string

	// Rev, CommitCID and Data are skipped together if Rev is older than the stored
	// one, unless Resync says that they are those of the repository fetched whole.
	Rev       *syntax.TID
	CommitCID *syntax.CID
	Data      *syntax.CID
	Resync    bool
	Seen      *syntax.TID // skipped if older than what has been seen
}

// newRepo is a repository of which nothing is known yet.
func newRepo(did syntax.DID) Repo {
	return Repo{DID: did, Account: Account{Active: true, Status: "active"}, Sync: Desynchronized}
}

// update applies what a batch from a host says.
func (r *Repo) update(u *RepoUpdate, host string) {
	r.updateAccount(u, host)
	if u.Handle != nil {
		r.Handle = u.Handle.Normalize()
		if r.Handle.IsInvalidHandle() {
			r.Handle = ""
		}
	}
	if u.Sync != nil {
		r.Sync = *u.Sync
		if r.Sync == Synchronized {
			r.Reason = ""
		}
	}
	set(&r.PDS, u.PDS)
	set(&r.Complete, u.Complete)
	r.completed = r.completed || u.Complete != nil && *u.Complete
	set(&r.Reason, u.Reason)
	if u.Seen != nil {
		r.Seen = max(r.Seen, *u.Seen)
	}
	if u.Rev != nil && *u.Rev < r.Rev && !u.Resync {
		return
	}
	set(&r.Rev, u.Rev)
	set(&r.CommitCID, u.CommitCID)
	set(&r.Data, u.Data)
	r.Seen = max(r.Seen, r.Rev)
}

func (r *Repo) updateAccount(u *RepoUpdate, host string) {
	if u.Active == nil && u.Status == nil {
		return
	}
	if u.Seq != nil {
		if r.Overtaken(host, *u.Seq, u.Time) {
			return
		}
		r.Said(host, *u.Seq, u.Time)
	}
	set(&r.Active, u.Active)
	set(&r.Status, u.Status)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (e *effect) writeRepos(batch *pgx.Batch) {
	if len(e.repos) == 0 {
		return
	}
	var c struct {
		dids, handles, pds, statuses, syncs, reasons, revs, commits, data, hosts []string
		active, complete, completed                                              []bool
		seqs                                                                     []int64
		times                                                                    []*time.Time
		seen                                                                     []string
	}
	for i := range e.repos {
		r := &e.repos[i]
		c.dids, c.handles, c.pds = append(c.dids, string(r.DID)), append(c.handles, string(r.Handle)), append(c.pds, text(r.PDS))
		c.statuses, c.syncs, c.reasons = append(c.statuses, text(r.Status)), append(c.syncs, string(r.Sync)), append(c.reasons, text(r.Reason))
		c.revs, c.commits, c.data = append(c.revs, string(r.Rev)), append(c.commits, string(r.CommitCID)), append(c.data, string(r.Data))
		c.active, c.complete = append(c.active, r.Active), append(c.complete, r.Complete)
		c.completed = append(c.completed, r.completed)
		c.hosts, c.seqs, c.times = append(c.hosts, r.host), append(c.seqs, r.seq), append(c.times, r.time)
		c.seen = append(c.seen, string(r.Seen))
	}
	// A handle belongs to whoever was last seen with it.
	batch.Queue(`
		UPDATE repos SET handle = NULL FROM unnest($1::text[], $2::text[]) AS now (did, handle)
		WHERE repos.handle = now.handle AND repos.did <> now.did AND now.handle <> ''`, c.dids, c.handles)
	batch.Queue(`
		INSERT INTO repos (did, handle, pds, active, status, sync, complete, reason, rev, commit_cid, data_cid, account_host, account_seq,
			account_time, seen, updated_at, complete_at)
		SELECT did, nullif(handle, ''), pds, active, status, sync, complete, reason, rev, commit_cid, data_cid, account_host, account_seq,
			account_time, seen, now(), CASE WHEN completed THEN now() END
		FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::boolean[], $8::text[], $9::text[],
			$10::text[], $11::text[], $12::text[], $13::bigint[], $14::timestamptz[], $15::text[], $16::boolean[])
			AS u (did, handle, pds, active, status, sync, complete, reason, rev, commit_cid, data_cid, account_host, account_seq, account_time, seen,
				completed)
		ON CONFLICT (did) DO UPDATE SET
			handle = excluded.handle, pds = excluded.pds, active = excluded.active, status = excluded.status, sync = excluded.sync,
			complete = excluded.complete, reason = excluded.reason, rev = excluded.rev, commit_cid = excluded.commit_cid,
			data_cid = excluded.data_cid, account_host = excluded.account_host, account_seq = excluded.account_seq,
			account_time = excluded.account_time, seen = excluded.seen, updated_at = excluded.updated_at,
			complete_at = coalesce(excluded.complete_at, repos.complete_at)`,
		c.dids, c.handles, c.pds, c.active, c.statuses, c.syncs, c.complete, c.reasons, c.revs, c.commits, c.data, c.hosts, c.seqs,
		c.times, c.seen, c.completed)
}

const repoColumns = `did, coalesce(handle, ''), pds, active, status, sync, complete, reason, rev, commit_cid, data_cid,
	updated_at, account_host, account_seq, account_time, seen`

func scanRepo(row pgx.CollectableRow) (r Repo, err error) {
	err = row.Scan(&r.DID, &r.Handle, &r.PDS, &r.Active, &r.Status, &r.Sync, &r.Complete, &r.Reason, &r.Rev, &r.CommitCID, &r.Data,
		&r.UpdatedAt, &r.host, &r.seq, &r.time, &r.Seen)
	return r, err
}

const selectRepos = "SELECT " + repoColumns + " FROM repos WHERE did = ANY ($1::text[])"

// LoadRepos returns the repositories that are followed among those asked for.
func (w *Writer) LoadRepos(ctx context.Context, dids []syntax.DID) (map[syntax.DID]Repo, error) {
	found, err := collect(ctx, w.pool, scanRepo, selectRepos, planned, dids)
	if err != nil {
		return nil, fmt.Errorf("read %d repositories: %w", len(dids), err)
	}
	return byDID(found), nil
}

func byDID(repos []Repo) map[syntax.DID]Repo {
	m := make(map[syntax.DID]Repo, len(repos))
	for _, r := range repos {
		m[r.DID] = r
	}
	return m
}

const trackedPage = 10_000

// TrackedDIDs calls fn with every repository that is followed, in the order of
// their DIDs, and ends with fn's first error.
func (w *Writer) TrackedDIDs(ctx context.Context, fn func(syntax.DID) error) error {
	for after := syntax.DID(""); ; {
		page, err := collect(ctx, w.pool, pgx.RowTo[syntax.DID], "SELECT did FROM repos WHERE did > $1 ORDER BY did LIMIT $2", after, trackedPage)
		if err != nil {
			return fmt.Errorf("read the followed repositories: %w", err)
		}
		for _, did := range page {
			if err := fn(did); err != nil {
				return err
			}
		}
		if len(page) < trackedPage {
			return nil
		}
		after = page[len(page)-1]
	}
}

// ResolveHandle finds the followed repository that has a handle, or [ErrNotFound].
func (r *Reader) ResolveHandle(ctx context.Context, handle syntax.Handle) (syntax.DID, error) {
	var did syntax.DID
	err := r.pool.QueryRow(ctx, "SELECT did FROM repos WHERE handle = $1 ORDER BY updated_at DESC LIMIT 1", handle.Normalize()).Scan(&did)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("handle %s: %w", handle, ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("resolve the handle %s: %w", handle, ended(ctx, err))
	}
	return did, nil
}
