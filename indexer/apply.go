package indexer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

const (
	applyTime    = 2 * time.Minute // one transaction, before it is tried anew
	maxRetryWait = 10 * time.Second
)

// commit applies a batch. Where PostgreSQL refuses what is in it, the events are
// applied one by one, so that the one at fault goes to the dead letters alone.
func (l *line) commit(ctx context.Context, b *batch) error {
	defer l.release(b)
	err := l.applyTogether(ctx, b)
	if !errors.Is(err, store.ErrRejected) {
		return err
	}
	l.Logger.ErrorContext(ctx, "a batch was rejected, applying its events singly", "events", len(b.slots), "error", err)
	for _, s := range b.slots {
		single := &batch{slots: []*slot{s}}
		err := l.applyTogether(ctx, single)
		if errors.Is(err, store.ErrRejected) {
			err = l.bury(ctx, s, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applyTogether steps through the batch and writes the result in one transaction.
func (l *line) applyTogether(ctx context.Context, b *batch) error {
	states, err := l.states(ctx, b)
	if err != nil {
		return err
	}
	tx := &transaction{line: l, states: states}
	for _, s := range b.slots {
		if err := tx.step(ctx, s); err != nil {
			return err
		}
	}
	for _, h := range b.handles {
		tx.handle(h)
	}
	if tx.out.Empty() && len(b.slots) > 0 && !l.cursors.first(tx.host) {
		// Only passing traffic: the cursor is saved with the next change, or at the next tick.
		l.cursors.passed(tx.host, tx.seq)
		return l.after(ctx, tx, 0)
	}
	ctx, span := tx.beginTrace(ctx, b.slots)
	err = l.write(ctx, tx)
	span.End(err)
	return err
}

// states reads the state of the batch's repositories, for as long as PostgreSQL
// does not answer.
func (l *line) states(ctx context.Context, b *batch) (states map[did]*repoState, err error) {
	err = l.persist(ctx, "reading repository states", func(ctx context.Context) error {
		states, err = l.repos.load(ctx, b.dids())
		return err
	})
	return states, err
}

// write applies the transaction and, once it has committed, takes its states and
// cursor for the present ones.
func (l *line) write(ctx context.Context, tx *transaction) error {
	tx.out.Host, tx.out.Cursor = l.cursors.next(tx.host, tx.seq)
	missed, first := tx.out.Overrun, l.cursors.first(tx.out.Host)
	tx.out.Overrun = missed || first
	began := time.Now()
	err := l.persist(ctx, "applying a batch", func(ctx context.Context) (err error) {
		ctx, span := telemetry.Start(ctx, "transaction")
		defer func() { span.End(err) }()
		return l.Writer.Apply(ctx, tx.out)
	})
	if err != nil {
		return err
	}
	l.repos.keep(tx.states)
	if tx.holds != nil {
		l.holds.of = tx.holds
	}
	switch {
	case missed:
		l.Logger.WarnContext(ctx, "events were missed, every repository will be fetched", "host", tx.out.Host)
		overruns.Inc()
	case first:
		l.Logger.InfoContext(ctx, "first events of a host, repositories that are followed already will be fetched", "host", tx.out.Host)
	}
	l.cursors.saved(tx.out.Host, tx.out.Cursor)
	return l.after(ctx, tx, time.Since(began))
}

// after does what follows a commit of the transaction.
func (l *line) after(ctx context.Context, tx *transaction, took time.Duration) error {
	for _, account := range tx.forget {
		if err := l.Verifier.Forget(ctx, account); err != nil {
			return fmt.Errorf("forgetting the keys of %s: %w", account, err)
		}
		l.handles.ask(account)
	}
	tx.observe(took)
	return nil
}

// persist repeats what PostgreSQL may fail to do for a while. A loss of the lock, a
// rejection and the end of ctx are not repeated. The work itself outlives ctx, so
// that a transaction under way at the end is not cut off.
func (l *line) persist(ctx context.Context, what string, do func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, maxRetryWait) {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
		err := do(attempt)
		cancel()
		if err == nil || fatal(ctx, err) || errors.Is(err, store.ErrRejected) {
			return err
		}
		storeRetries.Inc()
		l.Logger.ErrorContext(ctx, "PostgreSQL failed, will repeat", "what", what, "wait", wait, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// fatal tells the errors that end the line.
func fatal(ctx context.Context, err error) bool {
	return err != nil && (errors.Is(err, store.ErrLockLost) || ctx.Err() != nil)
}

// bury writes an event that PostgreSQL refuses to the dead letters, and leaves its
// repository to be fetched whole.
func (l *line) bury(ctx context.Context, s *slot, cause error) error {
	states, err := l.states(ctx, &batch{slots: []*slot{s}})
	if err != nil {
		return err
	}
	tx := &transaction{line: l, states: states, host: s.frame.Host, seq: s.outcome.event.Seq}
	tx.out.DeadLetters = []store.DeadLetter{rejectedEvent(s, cause)}
	if s.outcome.did != "" {
		tx.desynchronize(s.outcome.did, "an event was rejected by the store", s.outcome.verified.Commit.Rev)
	}
	return l.write(ctx, tx)
}

func rejectedEvent(s *slot, cause error) store.DeadLetter {
	return store.DeadLetter{
		Host: s.frame.Host, Seq: s.outcome.event.Seq, DID: s.outcome.did,
		Stage: stageStore, Class: "rejected", Reason: cause.Error(), Raw: s.frame.Data,
	}
}

// release gives the batch's room in the window back.
func (l *line) release(b *batch) {
	for _, s := range b.slots {
		l.window.leave(len(s.frame.Data))
	}
	lag.left(len(b.slots))
}
