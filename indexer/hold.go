package indexer

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// hold is what is known of the events that are kept for a repository while it is
// fetched; the frames themselves are in the store.
type hold struct {
	before store.SyncState // what the repository was when the fetch began
	events int
	bytes  int64
	seen   syntax.TID // the highest rev of those that hold
	spilt  string     // why its events are not kept any more; empty while they are
	told   bool       // an #account event has come since the fetch began
}

// holds has an entry for each repository that is being fetched.
type holds struct {
	of map[did]hold // for the stage in order alone

	mu      sync.Mutex
	written map[did]bool // whether the index has already something of what was fetched
}

func newHolds() *holds { return &holds{of: map[did]hold{}, written: map[did]bool{}} }

func (h *holds) begin(repo did) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.written[repo] { // not, where a fetch that was given up had written
		h.written[repo] = false
	}
}

func (h *holds) end(repo did) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.written, repo)
}

// writing notes that the index of repositories is about to change.
func (h *holds) writing(repos []did) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, repo := range repos {
		if _, begun := h.written[repo]; !begun {
			return fmt.Errorf("%s: %w", repo, errNotBegun)
		}
		h.written[repo] = true
	}
	return nil
}

func (h *holds) wrote(repo did) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.written[repo]
}

// held is the transaction's own copy of the holds.
func (tx *transaction) held() map[did]hold {
	if tx.holds == nil {
		tx.holds = maps.Clone(tx.line.holds.of)
	}
	return tx.holds
}

// hold keeps an event of a repository that is being fetched for later. Where there
// are too many of them they are dropped, and the fetch will have been in vain.
func (tx *transaction) hold(s *slot) {
	repo := s.outcome.did
	s.outcome.dead = nil
	tx.tally.held++
	rev := max(s.outcome.verified.Commit.Rev, s.outcome.synced.Rev) // of a commit that does not hold: none
	h := tx.held()[repo]
	if h.spilt != "" {
		tx.see(repo, rev)
		return
	}
	h.events++
	h.bytes += int64(len(s.frame.Data))
	h.seen = max(h.seen, rev)
	tx.holds[repo] = h
	tx.out.Held = append(tx.out.Held, store.Held{DID: repo, Host: s.frame.Host, Seq: s.outcome.event.Seq, Rev: rev, Frame: s.frame.Data})
	switch {
	case h.events > tx.line.HeldEvents:
		tx.spill(repo, fmt.Sprintf("more than %d events arrived while it was fetched", tx.line.HeldEvents))
	case h.bytes > tx.line.HeldOfOne:
		tx.spill(repo, fmt.Sprintf("more than %d bytes of events arrived while it was fetched", tx.line.HeldOfOne))
	}
	for sum, largest := tx.heldBytes(); sum > tx.line.HeldBytes; sum, largest = tx.heldBytes() {
		tx.spill(largest, "too many events arrived while it was fetched: no room was left for them")
	}
}

// heldBytes is the size of all frames that are held, and who has most of them.
func (tx *transaction) heldBytes() (sum int64, largest did) {
	for repo, h := range tx.held() {
		sum += h.bytes
		if most := tx.holds[largest].bytes; h.bytes > most || h.bytes == most && repo < largest {
			largest = repo
		}
	}
	return sum, largest
}

// spill drops what is held for a repository, and what would be.
func (tx *transaction) spill(repo did, reason string) {
	h := tx.held()[repo]
	if h.spilt != "" {
		return
	}
	h.events, h.bytes, h.spilt = 0, 0, reason
	tx.holds[repo] = h
	tx.see(repo, h.seen)
	tx.dropHeld(repo)
	tx.line.Logger.Warn("what arrived of a repository during its fetch is dropped", "did", repo, "reason", reason)
	spilt.Inc()
}

func (tx *transaction) dropHeld(repo did) {
	tx.out.DropHeld = append(tx.out.DropHeld, repo)
	tx.out.Held = slices.DeleteFunc(tx.out.Held, func(h store.Held) bool { return h.DID == repo })
}
