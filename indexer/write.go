package indexer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Write implements [resync.Line]. It goes beside the stream, straight to the writer,
// which lets one transaction pass at a time: it changes records of repositories
// whose events are held, and no repository's state.
func (l *line) Write(ctx context.Context, changes []store.Change, letters []store.DeadLetter) error {
	if err := l.gate.wait(ctx); err != nil {
		return err
	}
	if err := l.holds.writing(touched(changes, letters)); err != nil {
		return fmt.Errorf("writing what was fetched: %w", err)
	}
	err := l.put(ctx, store.Batch{Changes: changes, DeadLetters: letters})
	if errors.Is(err, store.ErrRejected) {
		l.Logger.ErrorContext(ctx, "a part of a repository was rejected, writing its records singly", "changes", len(changes), "error", err)
		err = l.putSingly(ctx, changes, letters)
	}
	if err != nil {
		return fmt.Errorf("writing %d changes of what was fetched: %w", len(changes), err)
	}
	return nil
}

// touched lists the repositories of a part, once each.
func touched(changes []store.Change, letters []store.DeadLetter) []did {
	var repos []did
	for _, c := range changes {
		repos = append(repos, c.Key.DID)
	}
	for _, letter := range letters {
		repos = append(repos, letter.DID)
	}
	slices.Sort(repos)
	return slices.Compact(repos)
}

func (l *line) put(ctx context.Context, b store.Batch) error {
	err := l.persist(ctx, "writing what was fetched", func(ctx context.Context) error { return l.Writer.Apply(ctx, b) })
	if err != nil {
		return err
	}
	var t tally
	t.changes(b.Changes)
	t.count(l.Catalog, b.DeadLetters)
	return nil
}

// putSingly writes each change by itself. A record that PostgreSQL refuses goes to
// the dead letters, and what it replaces goes from the index.
func (l *line) putSingly(ctx context.Context, changes []store.Change, letters []store.DeadLetter) error {
	if len(letters) > 0 {
		if err := l.put(ctx, store.Batch{DeadLetters: letters}); err != nil {
			return err
		}
	}
	for _, c := range changes {
		err := l.put(ctx, store.Batch{Changes: []store.Change{c}})
		if errors.Is(err, store.ErrRejected) {
			err = l.buryRecord(ctx, c, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *line) buryRecord(ctx context.Context, c store.Change, cause error) error {
	letter := store.DeadLetter{
		DID: c.Key.DID, Collection: c.Key.Collection, Rkey: c.Key.Rkey, Rev: c.Rev, CID: c.CID,
		Stage: stageStore, Class: "rejected", Reason: cause.Error(), Raw: encoded(c),
	}
	gone := store.Change{Action: record.Delete, Key: c.Key, Rev: c.Rev, Resync: true}
	err := l.put(ctx, store.Batch{Changes: []store.Change{gone}, DeadLetters: []store.DeadLetter{letter}})
	if errors.Is(err, store.ErrRejected) { // its very name cannot be stored, so nothing has that name
		err = l.put(ctx, store.Batch{DeadLetters: []store.DeadLetter{letter}})
	}
	return err
}

// encoded is the record's block, made again from its JSON form.
func encoded(c store.Change) []byte {
	value, err := atdata.UnmarshalJSON(c.JSON)
	if err != nil {
		return bytes.Clone(c.JSON)
	}
	block, err := atdata.MarshalCBOR(value)
	if err != nil {
		return bytes.Clone(c.JSON)
	}
	return block
}
