package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/internal/store"
)

// ending is how a fetch ends: with what was fetched, or without.
type ending struct {
	repo   did
	to     *resync.Fetched // nil: abandoned
	reason string
	again  error // why the repository is to be fetched anew; set when the ending is applied
}

// Finish implements [resync.Line].
func (l *line) Finish(ctx context.Context, repo did, to resync.Fetched) error {
	e := &ending{repo: repo, to: &to}
	err := l.settle(ctx, e)
	switch {
	case err != nil:
		return fmt.Errorf("finishing the fetch of %s: %w", repo, err)
	case e.again != nil:
		fetches.WithLabelValues("overtaken").Inc()
		return fmt.Errorf("%s: %w", repo, e.again)
	}
	fetches.WithLabelValues("finished").Inc()
	l.handles.ask(repo)
	return nil
}

// Abandon implements [resync.Line].
func (l *line) Abandon(ctx context.Context, repo did, reason string) error {
	err := l.settle(ctx, &ending{repo: repo, reason: reason})
	if errors.Is(err, errNotBegun) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("abandoning the fetch of %s: %w", repo, err)
	}
	fetches.WithLabelValues("abandoned").Inc()
	return nil
}

// settleRounds is how often settle goes back for events that came in the meantime,
// before it looks at the last of them while the stream waits.
const settleRounds = 5

var errMoreHeld = errors.New("further events are held")

// settle ends a fetch. The events that were held are examined before, beside the
// stream, since that may ask the network for keys; how they continue the repository
// is found out in order, in the transaction that ends the fetch.
func (l *line) settle(ctx context.Context, e *ending) error {
	if err := l.settling.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("waiting for another fetch to end: %w", err)
	}
	defer l.settling.Release(1)
	b := &backlog{repo: e.repo}
	for round := 1; ; round++ {
		if err := l.examineHeld(ctx, b); err != nil {
			return err
		}
		err := l.inOrder(ctx, func(ctx context.Context) error {
			h, begun := l.holds.of[e.repo]
			switch {
			case !begun:
				return errNotBegun
			case h.events > b.read && round < settleRounds:
				return errMoreHeld
			case h.events > b.read:
				if err := l.examineHeld(ctx, b); err != nil {
					return err
				}
			}
			return l.conclude(ctx, e, b.slots)
		})
		if !errors.Is(err, errMoreHeld) {
			return err
		}
	}
}

// backlog is what was held for a repository.
type backlog struct {
	repo  did
	slots []*slot
	read  int   // events that were read
	last  int64 // ID of the last of them
	over  bool  // an event did not hold: what follows it will not be applied
}

const examineAtOnce = 4 // of the events held for one repository

// examineHeld reads the events that came after those that were read, and examines them.
func (l *line) examineHeld(ctx context.Context, b *backlog) error {
	var events []store.Held
	err := l.persist(ctx, "reading held events", func(ctx context.Context) (err error) {
		events, err = l.Writer.HeldEvents(ctx, b.repo, b.last)
		return err
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(events, examineAtOnce) {
		b.read, b.last = b.read+len(some), some[len(some)-1].ID
		if b.over {
			continue
		}
		if err := l.examineSome(ctx, b, some); err != nil {
			return fmt.Errorf("examining an event that was held: %w", err)
		}
	}
	return nil
}

func (l *line) examineSome(ctx context.Context, b *backlog, events []store.Held) error {
	var group errgroup.Group
	for _, h := range events {
		s := &slot{frame: firehose.Frame{Host: h.Host, Data: h.Frame, Size: int64(len(h.Frame))}}
		b.slots = append(b.slots, s)
		group.Go(func() error {
			s.outcome = l.examine(ctx, s.frame)
			return s.outcome.err
		})
	}
	err := group.Wait()
	b.over = slices.ContainsFunc(b.slots, func(s *slot) bool { return s.outcome.event.Commit != nil && s.outcome.refused != nil })
	return err
}

// conclude applies the ending and what was held in one transaction.
func (l *line) conclude(ctx context.Context, e *ending, slots []*slot) error {
	tx, err := l.open(ctx, e.repo)
	if err != nil {
		return err
	}
	tx.end(ctx, e)
	for _, s := range slots {
		if err := tx.stepHeld(ctx, s); err != nil {
			return err
		}
	}
	tx.release(e)
	err = l.write(ctx, tx)
	if errors.Is(err, store.ErrRejected) && len(slots) > 0 {
		l.Logger.ErrorContext(ctx, "held events were rejected, applying them singly", "did", e.repo, "events", len(slots), "error", err)
		err = l.concludeSingly(ctx, e, slots)
	}
	if err != nil {
		return err
	}
	l.holds.end(e.repo)
	return nil
}

// concludeSingly applies the ending and then each event in a transaction of its own,
// so that the one that PostgreSQL refuses goes to the dead letters alone. Until the
// last of them the repository counts as being fetched: should this end half way, it
// is fetched anew.
func (l *line) concludeSingly(ctx context.Context, e *ending, slots []*slot) error {
	tx, err := l.open(ctx, e.repo)
	if err != nil {
		return err
	}
	states := tx.states
	tx.end(ctx, e)
	if err := l.writeUnfinished(ctx, tx, e.repo); err != nil {
		return err
	}
	for _, s := range slots {
		before := *states[e.repo]
		tx := &transaction{line: l, states: states}
		if err := tx.stepHeld(ctx, s); err != nil {
			return err
		}
		err := l.writeUnfinished(ctx, tx, e.repo)
		if errors.Is(err, store.ErrRejected) {
			*states[e.repo] = before
			tx = &transaction{line: l, states: states}
			tx.out.DeadLetters = []store.DeadLetter{rejectedEvent(s, err)}
			tx.desynchronize(e.repo, "an event was rejected by the store", s.outcome.verified.Commit.Rev)
			err = l.writeUnfinished(ctx, tx, e.repo)
		}
		if err != nil {
			return err
		}
	}
	tx = &transaction{line: l, states: states}
	tx.out.Repos = []store.RepoUpdate{{DID: e.repo, Sync: pointer(states[e.repo].sync), Resync: e.to != nil}}
	tx.release(e)
	return l.write(ctx, tx)
}

// writeUnfinished writes a part of an ending, with the repository still as being fetched.
func (l *line) writeUnfinished(ctx context.Context, tx *transaction, repo did) error {
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Sync: pointer(store.Resyncing)})
	return l.write(ctx, tx)
}

// stepHeld takes an event that was held as if it came now, but for its place in the
// stream, which was left behind when it was held.
func (tx *transaction) stepHeld(ctx context.Context, s *slot) error {
	err := tx.step(ctx, s)
	tx.host, tx.seq = "", 0
	return err
}

// end takes the repository to what the fetch comes to, before any event that was held.
func (tx *transaction) end(ctx context.Context, e *ending) {
	state, h := tx.states[e.repo], tx.held()[e.repo]
	written := tx.line.holds.wrote(e.repo)
	switch {
	case e.to != nil:
		e.again = nil
		tx.adopt(e, state)
	case written:
		state.complete, state.sync = false, store.Desynchronized
		tx.out.Repos = append(tx.out.Repos, broken(e.repo, e.reason))
	default:
		state.sync = h.before
		tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: e.repo, Sync: pointer(h.before)})
	}
	tx.line.Logger.DebugContext(ctx, "fetch ends", "did", e.repo, "found", e.to, "reason", e.reason, "written", written, "spilt", h.spilt)
	if h.spilt != "" {
		tx.desynchronize(e.repo, h.spilt, "")
	}
}

// adopt takes what was fetched for the state of the repository.
func (tx *transaction) adopt(e *ending, state *repoState) {
	stale := e.to.Rev < max(state.seen, state.rev)
	state.sync, state.complete = store.Synchronized, true
	state.rev, state.data = e.to.Rev, e.to.Data
	update := store.RepoUpdate{
		DID: e.repo, Sync: pointer(store.Synchronized), Complete: pointer(true),
		Rev: &e.to.Rev, CommitCID: &e.to.CommitCID, Data: &e.to.Data, Resync: true,
	}
	if e.to.PDS != "" {
		state.pds = e.to.PDS
		update.PDS = &e.to.PDS
	}
	tx.out.Repos = append(tx.out.Repos, update)
	switch {
	case state.gone():
		tx.desynchronize(e.repo, "the account was deleted", "")
	case stale:
		tx.desynchronize(e.repo, fmt.Sprintf("what was fetched, %s, is older than what was seen, %s", e.to.Rev, state.seen), "")
	}
	state.seen = max(state.seen, state.rev)
}

// release drops what was held, and tells how the fetch came out.
func (tx *transaction) release(e *ending) {
	tx.dropHeld(e.repo)
	delete(tx.held(), e.repo)
	if e.to != nil && tx.states[e.repo].sync != store.Synchronized {
		e.again = resync.ErrDesynchronized
	}
}
