// Package fault has what can go wrong between a simulated network and those that
// read from it: frames of the stream that are lost, doubled, altered or forged,
// connections that end or stand still, and HTTP answers that are late, endless,
// truncated or of another repository.
//
// A [Network] is put between a simulate.Server and its clients. Each fault on it
// counts how often it has fired, so that a test can tell that what it survived has
// happened.
package fault

import (
	"context"
	"hash/fnv"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// Count says how often a fault has fired, and bounds it.
type Count struct {
	// Most is how often the fault may fire; zero sets no bound.
	Most  int64
	tried atomic.Int64
	fired atomic.Int64
	ended atomic.Bool
}

// Fired is how often the fault has fired.
func (c *Count) Fired() int64 { return c.fired.Load() }

// End makes the fault fire no more.
func (c *Count) End() { c.ended.Store(true) }

// fire tells whether the fault is to fire now, and counts it.
func (c *Count) fire() bool {
	if c.ended.Load() || c.Most > 0 && c.tried.Add(1) > c.Most {
		return false
	}
	c.fired.Add(1)
	return true
}

// Fault is what goes wrong: a [Stream] or an [HTTP].
type Fault interface {
	Name() string
	Fired() int64
	End()
}

// Network is what lies between a server and its clients.
type Network struct {
	mu      sync.RWMutex
	streams []*Stream
	https   []*HTTP
}

// Add lets faults happen from now on; those of the stream on the subscriptions that
// begin from now on.
func (n *Network) Add(faults ...Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range faults {
		switch f := f.(type) {
		case *Gate:
			n.streams = append(n.streams, f.Stream)
		case *Stream:
			n.streams = append(n.streams, f)
		case *HTTP:
			n.https = append(n.https, f)
		}
	}
}

// End makes all faults fire no more.
func (n *Network) End() {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, f := range n.streams {
		f.End()
	}
	for _, f := range n.https {
		f.End()
	}
}

// Config makes a server's clients go through the network.
func (n *Network) Config(cfg simulate.ServerConfig) simulate.ServerConfig {
	cfg.Subscribe, cfg.Wrap = n.subscribe, n.wrap
	return cfg
}

// subscribe makes a subscription's frames go through all faults, in their order.
func (n *Network) subscribe(cursor int64) simulate.Delivery {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var stages []simulate.Delivery
	for _, f := range n.streams {
		stages = append(stages, f.begin(cursor))
	}
	return func(ctx context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
		frames := []simulate.Frame{frame}
		for _, stage := range stages {
			var out []simulate.Frame
			for _, f := range frames {
				next, err := stage(ctx, f)
				out = append(out, next...)
				if err != nil {
					return out, err
				}
			}
			frames = out
		}
		return frames, nil
	}
}

func (n *Network) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		n.mu.RLock()
		faults := n.https
		n.mu.RUnlock()
		for _, f := range faults {
			if f.on(in) && f.fire() {
				f.answer(out, in, next)
				return
			}
		}
		next.ServeHTTP(out, in)
	})
}

// share tells whether a number is among one in so many: always the same numbers for
// the same salt.
func share(salt string, number int64, one int) bool {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(salt))
	for range 8 {
		_, _ = sum.Write([]byte{byte(number)})
		number >>= 8
	}
	return sum.Sum64()%uint64(max(one, 1)) == 0
}
