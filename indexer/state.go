package indexer

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/layers-pub/layers-appview/internal/store"
)

// repoState is what a commit is held against.
type repoState struct {
	known    bool // false for a repository that is not followed yet
	account  store.Account
	sync     store.SyncState
	complete bool
	rev      syntax.TID
	seen     syntax.TID // the highest rev of a commit that holds, applied or not
	data     syntax.CID
	pds      string
}

const repoCacheSize = 100_000

// repoStates knows the followed repositories. The cache may be trusted: while the
// lock is held, nobody else changes them.
type repoStates struct {
	writer *store.Writer
	cache  *lru.Cache[did, repoState]

	mu       sync.RWMutex
	followed map[did]struct{}
}

func newRepoStates(writer *store.Writer) *repoStates {
	cache, err := lru.New[did, repoState](repoCacheSize)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &repoStates{writer: writer, cache: cache, followed: map[did]struct{}{}}
}

func (r *repoStates) loadTracked(ctx context.Context) error {
	return r.writer.TrackedDIDs(ctx, func(repo did) error {
		r.track(repo)
		return nil
	})
}

// tracked tells whether a repository may be followed: it is, or a commit of it on a
// followed collection is on its way.
func (r *repoStates) tracked(repo did) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.followed[repo]
	return ok
}

// any tells whether any repository is followed.
func (r *repoStates) any() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.followed) > 0
}

func (r *repoStates) track(repo did) {
	if r.tracked(repo) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.followed[repo] = struct{}{}
}

// load returns working copies of the states, for a transaction to change.
func (r *repoStates) load(ctx context.Context, repos []did) (map[did]*repoState, error) {
	states := make(map[did]*repoState, len(repos))
	var missing []did
	for _, repo := range repos {
		if !r.tracked(repo) {
			states[repo] = &repoState{}
		} else if state, ok := r.cache.Get(repo); ok {
			states[repo] = &state
		} else {
			missing = append(missing, repo)
		}
	}
	if len(missing) == 0 {
		return states, nil
	}
	stored, err := r.writer.LoadRepos(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("loading %d repository states: %w", len(missing), err)
	}
	for _, repo := range missing {
		state := &repoState{}
		if row, ok := stored[repo]; ok {
			*state = repoState{
				known: true, account: row.Account, sync: row.Sync, complete: row.Complete,
				rev: row.Rev, seen: row.Seen, data: row.Data, pds: row.PDS,
			}
		}
		states[repo] = state
	}
	return states, nil
}

// keep makes the states of a committed transaction the present ones.
func (r *repoStates) keep(states map[did]*repoState) {
	for repo, state := range states {
		if state.known {
			r.cache.Add(repo, *state)
		}
	}
}

// cursors counts how far each host's stream has been applied and saved.
type cursors struct {
	writer  *store.Writer
	mu      sync.Mutex
	reached map[string]int64 // applied
	stored  map[string]int64 // saved
	fresh   map[string]bool  // hosts that were met without a cursor, until one is saved
	refused map[string]int   // times in a row that a host said that our cursor is ahead of it
	host    string           // of the last event
}

func newCursors(writer *store.Writer) *cursors {
	return &cursors{writer: writer, reached: map[string]int64{}, stored: map[string]int64{}, fresh: map[string]bool{}, refused: map[string]int{}}
}

// of is the cursor from which to resume on a host.
func (c *cursors) of(ctx context.Context, host string, following bool) (int64, bool, error) {
	c.mu.Lock()
	seq, ok := c.reached[host]
	c.mu.Unlock()
	if ok {
		return seq, true, nil
	}
	seq, ok, err := c.writer.Cursor(ctx, host)
	switch {
	case err != nil:
	case ok:
		c.saved(host, seq)
	default:
		c.mu.Lock()
		c.fresh[host] = following // an empty index has missed nothing that is in it
		c.mu.Unlock()
	}
	return seq, ok, err
}

// first tells whether a host's stream was taken up without a cursor: it may not
// reach back to where another host's was left.
func (c *cursors) first(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fresh[host]
}

// futureRefusals are how often in a row a host has to say that our cursor is ahead of
// it, before it is believed to have begun a new sequence: one of several machines
// behind an address may only be late.
const futureRefusals = 3

// ahead notes that a host said so, and tells whether its sequence is a new one, which
// is then followed from its beginning.
func (c *cursors) ahead(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused[host]++; c.refused[host] < futureRefusals {
		return false
	}
	delete(c.refused, host)
	c.reached[host] = 0
	return true
}

// next is the cursor that a transaction which reaches seq on host will save: never
// lower than before, so that an event out of order does not move it back.
func (c *cursors) next(host string, seq int64) (string, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if host == "" {
		host = c.host
	}
	return host, max(seq, c.reached[host])
}

func (c *cursors) saved(host string, seq int64) {
	if host == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq > c.stored[host] {
		delete(c.refused, host)
	}
	c.host, c.reached[host], c.stored[host] = host, seq, seq
	delete(c.fresh, host)
}

// passed notes events that changed nothing, so that need no transaction of their own.
func (c *cursors) passed(host string, seq int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host, c.reached[host] = host, max(seq, c.reached[host])
}

func (c *cursors) unsaved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !maps.Equal(c.reached, c.stored)
}
