// Package simulate is an AT Protocol network inside the process: accounts with
// real repositories, whose signed commits are published the way a PDS publishes
// them, a PLC directory that says which keys sign, and the HTTP and WebSocket
// endpoints to read all of it.
//
// Everything follows from the seed: keys, DIDs, the clock, and so every byte of
// the stream. The same script played into two worlds of one seed gives the same
// frames. A [World] is the state, a [Server] its endpoints, a [Generator] writes
// sample corpora into it, and a [Recording] is a stream kept on disk.
package simulate

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Config says what a world is like. The zero value is usable.
type Config struct {
	Seed uint64
	// Start is the clock's first reading. Zero means 2025-03-01T00:00:00Z.
	Start time.Time
	// Now replaces the seeded clock, which moves only when something happens.
	// With it, streams are no longer reproducible.
	Now func() time.Time
	// Dir is where frames are kept, so that they need no memory; it becomes a
	// recording by [World.Save]. Empty keeps frames in memory.
	Dir string
	// Window is how many of the latest frames a subscriber can still get; zero
	// means all of them.
	Window int64
	// KeepDeleted keeps a deleted account's earlier frames in the stream, as some
	// relays do. A PDS purges them.
	KeepDeleted bool
}

// World is a network of one host. Its methods may be called concurrently; they
// take effect one after another.
type World struct {
	cfg Config

	mu       sync.Mutex
	now      time.Time
	accounts map[syntax.DID]*account
	order    []syntax.DID // as created
	handles  map[syntax.Handle]syntax.DID
	blocks   map[cid.Cid][]byte // record blocks, of every version ever written
	journal  []change
	log      *frameLog
}

// Errors that say a write does not fit the state of the world.
var (
	ErrNoAccount = errors.New("no such account")
	ErrNameTaken = errors.New("account name or handle is taken")
	ErrNotActive = errors.New("account is not active")
	ErrNoRecord  = errors.New("record does not exist")
	ErrHasRecord = errors.New("record exists already")
	ErrUnchanged = errors.New("update would change nothing")
	ErrTooBig    = errors.New("too much for one commit")
)

// NewWorld makes an empty world.
func NewWorld(cfg Config) (*World, error) {
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2025, time.March, 1, 0, 0, 0, 0, time.UTC)
	}
	log, err := newFrameLog(cfg.Dir, cfg.Window)
	if err != nil {
		return nil, fmt.Errorf("open frame log: %w", err)
	}
	return &World{
		cfg:      cfg,
		now:      cfg.Start.UTC(),
		accounts: map[syntax.DID]*account{},
		handles:  map[syntax.Handle]syntax.DID{},
		blocks:   map[cid.Cid][]byte{},
		log:      log,
	}, nil
}

// Close ends the world and every subscription to it.
func (w *World) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.close()
}

// LastSeq is the sequence number of the latest event, 0 before the first.
func (w *World) LastSeq() int64 { return w.log.last() }

// Accounts lists the DIDs of all accounts, deleted ones too, in order of creation.
func (w *World) Accounts() []syntax.DID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]syntax.DID(nil), w.order...)
}

// tick moves the clock on, by at least a microsecond, so that no two revs are
// the same, and returns the new time.
func (w *World) tick() time.Time {
	next := w.now.Add(time.Duration(1+w.log.last()%7) * 250 * time.Millisecond)
	if w.cfg.Now != nil {
		next = w.cfg.Now().UTC()
	}
	if least := w.now.Add(time.Microsecond); next.Before(least) {
		next = least
	}
	w.now = next
	return next
}

func (w *World) account(did syntax.DID) (*account, error) {
	a, ok := w.accounts[did]
	if !ok {
		return nil, fmt.Errorf("%s: %w", did, ErrNoAccount)
	}
	return a, nil
}

// change is one line of the world's history: a record's new state, or an
// account's.
type change struct {
	seq    int64
	did    syntax.DID
	key    record.Key // zero for a change of the account itself
	cid    cid.Cid    // undefined for a delete
	barred bool       // see Write.Barred
	status Status
}
