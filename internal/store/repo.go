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
	DID       syntax.DID
	Handle    syntax.Handle // empty without one that holds in both directions
	PDS       string
	Active    bool   // false hides its records from every read
	Status    string // as the last #account event had it, or "active"
	Sync      SyncState
	Complete  bool   // indexed from its first commit on, or fetched whole
	Reason    string // why it is not synchronized
	Rev       syntax.TID
	CommitCID syntax.CID
	Data      syntax.CID // root of its tree
	UpdatedAt time.Time

	accountHost string // where the last #account event came from
	accountSeq  int64
}

// RepoUpdate is what a batch says of a repository. What is nil stays as it was.
type RepoUpdate struct {
	DID syntax.DID
	// Active and Status are those of an #account event. With Seq, its sequence
	// number on [Batch.Host], a replayed one is skipped.
	Active *bool
	Status *string
	Seq    *int64

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
}

// newRepo is a repository of which nothing is known yet.
func newRepo(did syntax.DID) Repo {
	return Repo{DID: did, Active: true, Status: "active", Sync: Desynchronized}
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
	set(&r.Reason, u.Reason)
	if u.Rev != nil && *u.Rev < r.Rev && !u.Resync {
		return
	}
	set(&r.Rev, u.Rev)
	set(&r.CommitCID, u.CommitCID)
	set(&r.Data, u.Data)
}

func (r *Repo) updateAccount(u *RepoUpdate, host string) {
	if u.Active == nil && u.Status == nil {
		return
	}
	if u.Seq != nil {
		if host == r.accountHost && *u.Seq <= r.accountSeq {
			return
		}
		r.accountHost, r.accountSeq = host, *u.Seq
	}
	set(&r.Active, u.Active)
	set(&r.Status, u.Status)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

const repoColumns = `did, coalesce(handle, ''), pds, active, status, sync, complete, reason, rev, commit_cid, data_cid,
	updated_at, account_host, account_seq`

func scanRepo(row pgx.CollectableRow) (r Repo, err error) {
	err = row.Scan(&r.DID, &r.Handle, &r.PDS, &r.Active, &r.Status, &r.Sync, &r.Complete, &r.Reason, &r.Rev, &r.CommitCID, &r.Data,
		&r.UpdatedAt, &r.accountHost, &r.accountSeq)
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
