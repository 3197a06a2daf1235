// Package indexer runs the line from the socket to PostgreSQL: frames are decoded,
// verified and validated in parallel, then applied strictly in the order of the
// stream, many to a transaction that also holds the cursor. Stage 3.
//
// Read on in line.go (the flow), examine.go (what happens in parallel), apply.go
// (what happens in order), chain.go (whether a commit continues its repository),
// account.go (hosting statuses), and fetch.go and hold.go (what happens while a
// repository is fetched whole).
package indexer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Config is what the line is made of. The zero sizes take the defaults.
type Config struct {
	Firehose *firehose.Client
	Verifier *verify.Verifier
	Catalog  *catalog.Catalog
	Writer   *store.Writer
	// VerifiedHandle resolves an account's handle in both directions.
	VerifiedHandle func(context.Context, syntax.DID) (syntax.Handle, error)
	Logger         *slog.Logger
	// Replays, unless nil, puts dead letters through again while the lock is held.
	Replays interface{ Run(context.Context) error }

	// Resync fetches the repositories that are desynchronized, and Discovery finds
	// those that the stream does not tell of. They run while the line does, and end
	// with ctx; an error of theirs ends it. Without a Resync, a repository that is met
	// in the middle of its history is followed from there, and marked incomplete.
	Resync interface {
		Run(ctx context.Context, line resync.Line) error
	}
	Discovery interface {
		Run(ctx context.Context) error
	}
	// Outbox is what the projections have yet to catch up with. While it has more than
	// OutboxBound rows, no events are taken. Nil does not look at it.
	Outbox *store.Outbox

	Workers     int           // frames examined at once; they mostly compute, but may wait for an identity
	Window      int           // frames between the socket and the transaction
	WindowBytes int64         // bytes of those frames
	BatchEvents int           // events applied in one transaction, at most
	BatchBytes  int64         // bytes of record values in one transaction, roughly
	CursorEvery time.Duration // how often the cursor is saved while nothing else is
	HeldEvents  int           // events kept for one repository while it is fetched; 2,000 by default
	HeldOfOne   int64         // bytes of those events, which are in memory together when the fetch ends; 16 MiB by default
	HeldBytes   int64         // bytes of the events kept for all repositories; 64 MiB by default
	OutboxBound int64         // rows; 1,000,000 by default
	OutboxEvery time.Duration // how often they are counted; 3 s by default
}

func (c *Config) setDefaults() {
	c.Workers = cmp.Or(c.Workers, max(16, 4*runtime.GOMAXPROCS(0)))
	c.Window = cmp.Or(c.Window, 4096)
	c.WindowBytes = cmp.Or(c.WindowBytes, 32<<20)
	c.BatchEvents = cmp.Or(c.BatchEvents, 1000)
	c.BatchBytes = cmp.Or(c.BatchBytes, 16<<20)
	c.CursorEvery = cmp.Or(c.CursorEvery, time.Second)
	c.HeldEvents = cmp.Or(c.HeldEvents, 2000)
	c.HeldOfOne = cmp.Or(c.HeldOfOne, 16<<20)
	c.HeldBytes = cmp.Or(c.HeldBytes, 64<<20)
	c.OutboxBound = cmp.Or(c.OutboxBound, 1_000_000)
	c.OutboxEvery = cmp.Or(c.OutboxEvery, 3*time.Second)
}

// Indexer is the one writer of a database.
type Indexer struct {
	cfg    Config
	window atomic.Pointer[window] // of the line that runs; nil on standby
}

// New makes an indexer; Run starts it.
func New(cfg Config) *Indexer {
	cfg.setDefaults()
	return &Indexer{cfg: cfg}
}

// Behind tells whether events come in faster than they are applied, as while a
// backlog is worked off. What can wait may then leave the processors to the line.
func (ix *Indexer) Behind() bool {
	w := ix.window.Load()
	return w != nil && w.crowded()
}

// Leading tells whether this process is the one that writes.
func (ix *Indexer) Leading() bool { return ix.window.Load() != nil }

// standbyWait lies between a loss of the lock and the next try.
const standbyWait = 200 * time.Millisecond

// Run indexes until ctx ends. While another indexer holds the database it waits as
// standby; it takes over when that one's connection dies, and becomes standby
// again where it loses its own.
func (ix *Indexer) Run(ctx context.Context) error {
	for {
		err := ix.lead(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end was asked for
		case errors.Is(err, store.ErrLockLost):
			ix.cfg.Logger.WarnContext(ctx, "lost the writer's lock, waiting as standby", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(standbyWait):
			}
		default:
			return err
		}
	}
}

// lead waits for the writer's lock and runs the line while it is held.
func (ix *Indexer) lead(ctx context.Context) error {
	ix.cfg.Logger.InfoContext(ctx, "waiting for the writer's lock")
	leading.Set(0)
	release, lost, err := ix.cfg.Writer.Lock(ctx)
	if err != nil { // the connection was lost after it was taken: another try is due
		return fmt.Errorf("taking the writer's lock: %w: %w", store.ErrLockLost, err)
	}
	defer release()
	leading.Set(1)
	defer leading.Set(0)
	ix.cfg.Logger.InfoContext(ctx, "this process is the writer")

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-lost:
			cancel(store.ErrLockLost)
		case <-ctx.Done():
		}
	}()
	line, err := newLine(ctx, ix.cfg)
	if err == nil {
		ix.window.Store(line.window)
		defer ix.window.Store(nil)
		err = line.run(ctx)
	}
	if cause := context.Cause(ctx); errors.Is(cause, store.ErrLockLost) {
		return cause
	}
	return err
}
