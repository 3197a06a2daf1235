package indexer

import (
	"context"
	"sync"
	"time"
)

// gate keeps new work out while the projections are too far behind, so that what
// lies between PostgreSQL and them is bounded too.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// wait returns when the gate is open.
func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		return false
	default:
		return true
	}
}

// shut closes the gate if it is not, or opens it.
func (g *gate) shut(yes bool) {
	if g.isShut() == yes {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if yes {
		g.open = make(chan struct{})
	} else {
		close(g.open)
	}
}

// watchOutbox shuts the gate when the outbox has more rows than its bound, and
// opens it when nine tenths of that are left.
func (l *line) watchOutbox(ctx context.Context) error {
	defer outboxFull.Set(0)
	tick := time.NewTicker(l.OutboxEvery)
	defer tick.Stop()
	for {
		l.checkOutbox(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (l *line) checkOutbox(ctx context.Context) {
	was, bound := l.gate.isShut(), l.OutboxBound
	if was {
		bound = bound / 10 * 9
	}
	full, err := l.Outbox.Exceeds(ctx, bound)
	if err != nil {
		l.Logger.WarnContext(ctx, "the outbox could not be counted", "error", err)
		return
	}
	if full == was {
		return
	}
	l.gate.shut(full)
	if full {
		outboxFull.Set(1)
		l.Logger.WarnContext(ctx, "the projections are too far behind, taking no more events until they catch up", "rows", bound)
	} else {
		outboxFull.Set(0)
		l.Logger.InfoContext(ctx, "the projections have caught up, taking events again", "rows", bound)
	}
}
