package fault

import (
	"context"
	"sync"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// Gate holds back the events after a certain one, until it is opened further. It fires
// whenever a subscription waits at it.
type Gate struct {
	*Stream
	mu     sync.Mutex
	until  int64
	latest int64
	moved  chan struct{} // closed, and replaced, when anything changes
}

// NewGate makes a gate that is closed.
func NewGate() *Gate {
	g := &Gate{moved: make(chan struct{})}
	g.Stream = &Stream{name: "gate", begin: func(int64) simulate.Delivery { return g.deliver }}
	return g
}

// Open lets events up to seq pass.
func (g *Gate) Open(seq int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = max(g.until, seq)
	g.change()
}

func (g *Gate) change() {
	close(g.moved)
	g.moved = make(chan struct{})
}

// Latest is the latest event that has passed.
func (g *Gate) Latest() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.latest
}

// Passed returns once an event has passed, or ctx has ended.
func (g *Gate) Passed(ctx context.Context, seq int64) {
	for {
		g.mu.Lock()
		done, moved := g.latest >= seq, g.moved
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gate) deliver(ctx context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
	for waits := false; ; waits = true {
		g.mu.Lock()
		open, moved := frame.Seq <= g.until, g.moved
		if open && frame.Seq > g.latest {
			g.latest = frame.Seq
			g.change()
		}
		g.mu.Unlock()
		if open {
			return []simulate.Frame{frame}, nil
		}
		if !waits {
			g.fire()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
