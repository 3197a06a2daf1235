package store

import (
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// keyChange is the last change of a record in a batch.
type keyChange struct {
	*Change
	at    int  // position in the batch
	again bool // it is not the first of its record in the batch
	// deleted is the rev of a delete before it in the batch: what follows that is
	// another record under the same key, with a place of its own in lists.
	deleted syntax.TID
}

// coalesce keeps the last change of each record, in the order of the stream.
func coalesce(changes []Change) ([]keyChange, error) {
	last := make(map[record.Key]int, len(changes))
	kept := make([]keyChange, 0, len(changes))
	for i := range changes {
		c := &changes[i]
		if err := c.check(); err != nil {
			return nil, err
		}
		if c.Prepare(); c.prepared.err != nil {
			return nil, c.prepared.err
		}
		next := keyChange{Change: c, at: i}
		at, again := last[c.Key]
		if !again {
			last[c.Key] = len(kept)
			kept = append(kept, next)
			continue
		}
		if before := kept[at]; c.follows(before.Change) {
			next.deleted, next.again = before.deleted, true
			if before.Action == record.Delete {
				next.deleted = before.Rev
			}
			kept[at] = next
		}
	}
	slices.SortFunc(kept, func(a, b keyChange) int { return a.at - b.at })
	return kept, nil
}

// follows tells whether a change takes effect after another of the same record.
func (c *Change) follows(before *Change) bool {
	return c.Resync || c.Rev > before.Rev
}

// stored is what decides whether a change is overtaken, and what the record refers to.
type stored struct {
	rev     syntax.TID
	cid     syntax.CID
	targets []int64 // hashes, each once, in their order
}

// takesEffect tells whether a change alters the store. old is nil if there is no
// such record; repo is the rev of its repository before the batch.
func (c *keyChange) takesEffect(old *stored, repo syntax.TID) bool {
	switch {
	case old == nil && c.Action == record.Delete:
		return false
	case c.Resync:
		return old == nil || c.Action == record.Delete || c.CID != old.cid
	case old != nil:
		return c.Rev > old.rev
	case c.DeadLetter != 0:
		return true
	}
	return c.Rev >= repo
}

// isNew tells whether a commit of the stream says that there was no such record before it.
func (c *keyChange) isNew() bool {
	return c.Action == record.Create && !c.Resync && c.DeadLetter == 0 && !c.again
}

// renews tells whether a change that takes effect makes a new record where old was.
func (c *keyChange) renews(old *stored) bool {
	return c.deleted != "" && c.deleted > old.rev
}
