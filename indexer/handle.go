package indexer

import (
	"context"
	"log/slog"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"
)

const (
	handleQueue   = 10_000
	handleWorkers = 4
	handleTime    = 10 * time.Second
)

// handleChecker resolves handles beside the stream, since that asks hosts that may
// be slow and an account's handle is not part of its repository's truth.
type handleChecker struct {
	resolve func(context.Context, syntax.DID) (syntax.Handle, error)
	logger  *slog.Logger
	asked   chan did
	checked chan checkedHandle
}

type checkedHandle struct {
	did    did
	handle syntax.Handle // handle.invalid where the two directions disagree
}

func newHandleChecker(resolve func(context.Context, syntax.DID) (syntax.Handle, error), logger *slog.Logger) *handleChecker {
	return &handleChecker{resolve: resolve, logger: logger, asked: make(chan did, handleQueue), checked: make(chan checkedHandle, 64)}
}

// ask queues a look-up. With the queue full it is dropped: the account's next
// #identity event asks again.
func (h *handleChecker) ask(account did) {
	select {
	case h.asked <- account:
	default:
		handlesDropped.Inc()
	}
}

func (h *handleChecker) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range handleWorkers {
		group.Go(func() error { return h.work(ctx) })
	}
	return group.Wait()
}

func (h *handleChecker) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case account := <-h.asked:
			h.check(ctx, account)
		}
	}
}

func (h *handleChecker) check(ctx context.Context, account did) {
	lookup, cancel := context.WithTimeout(ctx, handleTime)
	defer cancel()
	handle, err := h.resolve(lookup, account)
	if err != nil {
		h.logger.DebugContext(ctx, "handle could not be checked", "did", account, "error", err)
		return
	}
	select {
	case h.checked <- checkedHandle{did: account, handle: handle}:
	case <-ctx.Done():
	}
}
