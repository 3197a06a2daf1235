package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/internal/store"
)

// The line is the [resync.Line] of its fetches.
var _ resync.Line = (*line)(nil)

var errNotBegun = errors.New("no fetch of the repository is under way")

// recoverFetches gives up the fetches that another run left behind. What they have
// written is not known, so they begin anew.
func (l *line) recoverFetches(ctx context.Context) error {
	var left []did
	err := l.persist(ctx, "reading interrupted fetches", func(ctx context.Context) (err error) {
		left, err = l.Writer.Resyncing(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if len(left) == 0 {
		return nil
	}
	seen, err := l.heldRevs(ctx)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(left, 1000) {
		b := store.Batch{DropHeld: chunk}
		for _, repo := range chunk {
			update := broken(repo, "its fetch was interrupted")
			update.Seen = pointer(seen[repo])
			b.Repos = append(b.Repos, update)
		}
		err := l.persist(ctx, "giving up interrupted fetches", func(ctx context.Context) error { return l.Writer.Apply(ctx, b) })
		if err != nil {
			return err
		}
		l.Logger.InfoContext(ctx, "fetches were interrupted, they begin anew", "repos", len(chunk))
	}
	return nil
}

// heldRevs are the highest revs of the events that another run has held.
func (l *line) heldRevs(ctx context.Context) (revs map[did]syntax.TID, err error) {
	err = l.persist(ctx, "reading which events are held", func(ctx context.Context) (err error) {
		revs, err = l.Writer.HeldRevs(ctx)
		return err
	})
	return revs, err
}

// broken says of a repository that the index has no state of it, but a mixture.
func broken(repo did, reason string) store.RepoUpdate {
	return store.RepoUpdate{DID: repo, Sync: pointer(store.Desynchronized), Complete: pointer(false), Reason: &reason}
}

// Begin implements [resync.Line].
func (l *line) Begin(ctx context.Context, repo did) (row store.Repo, err error) {
	err = l.inOrder(ctx, func(ctx context.Context) error {
		l.repos.track(repo)
		tx, err := l.open(ctx, repo)
		if err != nil {
			return err
		}
		row, err = l.row(ctx, repo)
		if err != nil {
			return err
		}
		tx.begin(repo)
		if err := l.write(ctx, tx); err != nil {
			return err
		}
		l.holds.begin(repo)
		return nil
	})
	if err != nil {
		return store.Repo{}, fmt.Errorf("beginning the fetch of %s: %w", repo, err)
	}
	return row, nil
}

// begin is also right for a repository whose fetch has begun: then that one was given up.
func (tx *transaction) begin(repo did) {
	state := tx.states[repo]
	h, again := tx.held()[repo]
	if !again {
		h.before = store.Desynchronized
		if state.known {
			h.before = state.sync
		}
	}
	if !state.known {
		state.account = store.Account{Active: true, Status: "active"}
	}
	state.known, state.sync = true, store.Resyncing
	tx.dropHeld(repo)
	if h.events > 0 || h.spilt != "" { // they are gone
		h.before = store.Desynchronized
		tx.see(repo, h.seen)
	}
	tx.holds[repo] = hold{before: h.before}
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Sync: pointer(store.Resyncing)})
}

// open begins a transaction on one repository, outside the stream.
func (l *line) open(ctx context.Context, repo did) (*transaction, error) {
	tx := &transaction{line: l}
	err := l.persist(ctx, "reading a repository's state", func(ctx context.Context) (err error) {
		tx.states, err = l.repos.load(ctx, []did{repo})
		return err
	})
	return tx, err
}

// row is all that is stored of a repository; zero but for the DID where nothing is.
func (l *line) row(ctx context.Context, repo did) (store.Repo, error) {
	row := store.Repo{DID: repo}
	err := l.persist(ctx, "reading a repository", func(ctx context.Context) error {
		rows, err := l.Writer.LoadRepos(ctx, []did{repo})
		if found, ok := rows[repo]; ok {
			row = found
		}
		return err
	})
	return row, err
}

// Purge implements [resync.Line].
func (l *line) Purge(ctx context.Context, repo did) error {
	purged := false
	err := l.inOrder(ctx, func(ctx context.Context) (err error) {
		purged, err = l.purge(ctx, repo)
		return err
	})
	if err == nil && !purged {
		return l.Abandon(ctx, repo, "the account is not deleted any more")
	}
	if err != nil {
		return fmt.Errorf("purging %s: %w", repo, err)
	}
	fetches.WithLabelValues("purged").Inc()
	return nil
}

// purge leaves the tombstone of a deleted account; false where it is not deleted.
func (l *line) purge(ctx context.Context, repo did) (bool, error) {
	if _, begun := l.holds.of[repo]; !begun {
		return false, errNotBegun
	}
	tx, err := l.open(ctx, repo)
	if err != nil || !tx.states[repo].gone() {
		return false, err
	}
	var rest []string
	err = l.persist(ctx, "looking for records of a deleted account", func(ctx context.Context) error {
		collections, err := l.Writer.RepoCollections(ctx, repo)
		rest = nil
		for _, c := range collections {
			rest = append(rest, string(c))
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if len(rest) > 0 {
		return false, fmt.Errorf("there are records of it still, in %v", rest)
	}
	*tx.states[repo] = repoState{known: true, account: tx.states[repo].account, sync: store.Synchronized}
	tx.out.Purge = []did{repo}
	delete(tx.held(), repo)
	if err := l.write(ctx, tx); err != nil {
		return false, err
	}
	l.holds.end(repo)
	return true, l.Verifier.Forget(ctx, repo)
}
