package resync

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// contents is what the store has of a repository; see [store.Writer].
type contents interface {
	RepoCollections(ctx context.Context, did syntax.DID) ([]syntax.NSID, error)
	RepoRecords(ctx context.Context, did syntax.DID, collection syntax.NSID, after syntax.RecordKey, limit int) ([]store.Stored, error)
}

// checker says whether a record is valid; see [catalog.Catalog].
type checker interface {
	Check(key record.Key, block []byte) (catalog.Checked, error)
}

const (
	storedPage   = 2000
	chunkChanges = 1000
	chunkBytes   = 8 << 20
)

// shelf goes through what the store has of a repository, in the order of keys in a
// tree, a page at a time.
type shelf struct {
	contents    contents
	did         syntax.DID
	collections []syntax.NSID // those still to come; the first is at hand
	page        []store.Stored
	whole       bool // page is the collection's last
}

// next returns a record's key in the tree and its CID; ok is false at the end.
func (s *shelf) next(ctx context.Context) (key record.Key, c syntax.CID, ok bool, err error) {
	for len(s.collections) > 0 {
		collection := s.collections[0]
		if len(s.page) > 0 {
			r := s.page[0]
			if len(s.page) > 1 || s.whole {
				s.page = s.page[1:]
			} else if err := s.turn(ctx, collection, r.Rkey); err != nil {
				return record.Key{}, "", false, err
			}
			return record.Key{DID: s.did, Collection: collection, Rkey: r.Rkey}, r.CID, true, nil
		}
		if s.whole {
			s.collections, s.whole = s.collections[1:], false
			continue
		}
		if err := s.turn(ctx, collection, ""); err != nil {
			return record.Key{}, "", false, err
		}
	}
	return record.Key{}, "", false, nil
}

func (s *shelf) turn(ctx context.Context, collection syntax.NSID, after syntax.RecordKey) (err error) {
	s.page, err = s.contents.RepoRecords(ctx, s.did, collection, after, storedPage)
	s.whole = len(s.page) < storedPage
	return err
}

// counts says what a fetch did to the index.
type counts struct{ created, updated, deleted, unchanged, invalid int }

// diff brings the index from what the store has to what a tree has. Changes are
// made ready while the ones before are being written; of both together no more
// than two chunks are in memory.
type diff struct {
	line     Line
	contents contents
	checker  checker
	did      syntax.DID
	rev      syntax.TID
	host     string // that the tree came from, for dead letters

	chunk  chunk
	chunks chan chunk
	counts counts
}

// chunk is a part of the difference.
type chunk struct {
	changes []store.Change
	letters []store.DeadLetter
	bytes   int
}

// apply compares the store's collections with the walk, nil for an empty tree.
// Both have to be of the same scope.
func (d *diff) apply(ctx context.Context, blocks blocks, tree *walk, collections []syntax.NSID) error {
	d.chunks = make(chan chunk)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for c := range d.chunks {
			if err := d.line.Write(ctx, c.changes, c.letters); err != nil {
				return fmt.Errorf("writing a part of the difference: %w", err)
			}
		}
		return nil
	})
	group.Go(func() error {
		defer close(d.chunks)
		if err := d.merge(ctx, blocks, tree, collections); err != nil {
			return err
		}
		return d.flush(ctx)
	})
	return group.Wait()
}

func (d *diff) merge(ctx context.Context, blocks blocks, tree *walk, collections []syntax.NSID) error {
	stored := &shelf{contents: d.contents, did: d.did, collections: collections}
	have, haveCID, more, err := stored.next(ctx)
	if err != nil {
		return err
	}
	for {
		key, value, err := tree.nextOrEnd()
		if err != nil {
			return err
		}
		for more && (key == nil || have.Path() < string(key)) {
			if err := d.remove(ctx, have); err != nil {
				return err
			}
			if have, haveCID, more, err = stored.next(ctx); err != nil {
				return err
			}
		}
		if key == nil {
			return nil
		}
		old := syntax.CID("")
		if more && have.Path() == string(key) {
			old = haveCID
			if have, haveCID, more, err = stored.next(ctx); err != nil {
				return err
			}
		}
		if err := d.take(ctx, blocks, key, value, old); err != nil {
			return err
		}
	}
}

func (w *walk) nextOrEnd() ([]byte, cid.Cid, error) {
	if w == nil {
		return nil, cid.Undef, nil
	}
	return w.next()
}

func (d *diff) remove(ctx context.Context, key record.Key) error {
	d.counts.deleted++
	return d.add(ctx, store.Change{Action: record.Delete, Key: key, Rev: d.rev, Resync: true}, 0)
}

// take compares a record of the tree with what the store has of it, if anything.
func (d *diff) take(ctx context.Context, blocks blocks, path []byte, value cid.Cid, old syntax.CID) error {
	c := syntax.CID(value.String())
	if c == old {
		d.counts.unchanged++
		return nil
	}
	block, err := blocks.get(value)
	if err != nil {
		return fmt.Errorf("record %.600s: %w", path, err)
	}
	collection, rkey, _ := strings.Cut(string(path), "/")
	key := record.Key{DID: d.did, Collection: syntax.NSID(collection), Rkey: syntax.RecordKey(rkey)}
	checked, err := d.checker.Check(key, block)
	if err != nil {
		return d.reject(ctx, key, c, block, old, err)
	}
	change := store.Change{
		Action: record.Create, Key: key, Rev: d.rev, Resync: true, CID: c,
		JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
	}
	if old == "" {
		d.counts.created++
	} else {
		change.Action = record.Update
		d.counts.updated++
	}
	return d.add(ctx, change, len(change.JSON))
}

// reject makes a dead letter of an invalid record. What it has replaced goes from
// the index: the repository does not hold that any more.
func (d *diff) reject(ctx context.Context, key record.Key, c syntax.CID, block []byte, old syntax.CID, cause error) error {
	letter := store.DeadLetter{
		Host: d.host, DID: d.did, Collection: key.Collection, Rkey: key.Rkey, Rev: d.rev, CID: c,
		Stage: "validate", Class: "invalid", Reason: cause.Error(), Raw: append([]byte(nil), block...),
	}
	var invalid *catalog.Invalid
	if errors.As(cause, &invalid) {
		letter.Path, letter.Reason = invalid.Path, invalid.Reason
		letter.Expected, letter.Received = invalid.Expected, invalid.Received
	}
	d.counts.invalid++
	d.chunk.letters = append(d.chunk.letters, letter)
	d.chunk.bytes += len(block)
	if old != "" {
		return d.remove(ctx, key)
	}
	return d.flushFull(ctx)
}

func (d *diff) add(ctx context.Context, change store.Change, size int) error {
	d.chunk.changes = append(d.chunk.changes, change)
	d.chunk.bytes += size
	return d.flushFull(ctx)
}

func (d *diff) flushFull(ctx context.Context) error {
	if len(d.chunk.changes)+len(d.chunk.letters) < chunkChanges && d.chunk.bytes < chunkBytes {
		return ctx.Err()
	}
	return d.flush(ctx)
}

func (d *diff) flush(ctx context.Context) error {
	if len(d.chunk.changes)+len(d.chunk.letters) == 0 {
		return nil
	}
	select {
	case d.chunks <- d.chunk:
		d.chunk = chunk{}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
