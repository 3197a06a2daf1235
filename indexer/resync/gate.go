package resync

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxClosed     = time.Hour   // whatever a host asks for
	throttledFor  = time.Minute // where it does not say for how long
	breakAfter    = 3           // failures in a row
	gatesKept     = 4096        // hosts that are remembered, besides those in use or closed
	redirectsKept = 10 * time.Minute
)

// gates has one for each host that is asked.
type gates struct {
	places int
	every  rate.Limit
	broken time.Duration // that a host is left alone which fails; twice as long after each further failure
	now    func() time.Time

	mu sync.Mutex
	of map[string]*gate
}

func newGates(places int, perSecond float64, broken time.Duration) *gates {
	return &gates{places: places, every: rate.Limit(perSecond), broken: broken, now: time.Now, of: map[string]*gate{}}
}

// gate bounds what one host is asked at once and in a second, and keeps away from it
// for as long as it wants to be left alone, or seems to be down.
type gate struct {
	gates   *gates
	host    string
	places  chan struct{}
	limiter *rate.Limiter

	mu         sync.Mutex
	using      int
	closed     time.Time // until then
	why        string
	failures   int // in a row
	redirected time.Time
}

// at is the gate of a host; leave it with done.
func (g *gates) at(host string) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	found, ok := g.of[host]
	if !ok {
		if len(g.of) >= gatesKept {
			g.forget()
		}
		found = &gate{gates: g, host: host, places: make(chan struct{}, g.places), limiter: rate.NewLimiter(g.every, max(1, int(g.every)))}
		g.of[host] = found
	}
	found.mu.Lock()
	found.using++
	found.mu.Unlock()
	return found
}

// forget drops the gates that nobody would miss.
func (g *gates) forget() {
	now := g.now()
	for host, gate := range g.of {
		gate.mu.Lock()
		idle := gate.using == 0 && !gate.closed.After(now) && gate.failures == 0
		gate.mu.Unlock()
		if idle {
			delete(g.of, host)
		}
	}
}

func (g *gate) done() {
	g.mu.Lock()
	g.using--
	g.mu.Unlock()
}

// enter waits for a place and for the rate, and returns what gives the place back.
// It fails with a [Failure] at once while the gate is closed.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	leave = sync.OnceFunc(func() { <-g.places })
	if err := g.limiter.Wait(ctx); err != nil {
		leave()
		return nil, err
	}
	if err := g.check(); err != nil { // it may have been closed meanwhile
		leave()
		return nil, err
	}
	return leave, nil
}

func (g *gate) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed.After(g.gates.now()) {
		return &Failure{Class: Closed, Host: g.host, Until: g.closed, Err: errText(g.why)}
	}
	return nil
}

// throttle closes the gate as the host asks; zero is until then unknown.
func (g *gate) throttle(until time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.gates.now()
	if !until.After(now) {
		until = now.Add(throttledFor)
	}
	if last := now.Add(maxClosed); until.After(last) {
		until = last
	}
	if until.After(g.closed) {
		g.closed, g.why = until, "the host asks to be left alone"
	}
	hostsClosed.WithLabelValues("throttled").Inc()
	return g.closed
}

// failed counts a failure of the host's; after some in a row the gate closes.
func (g *gate) failed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failures++
	if g.failures < breakAfter {
		return
	}
	wait := doubled(g.gates.broken, maxClosed, g.failures-breakAfter)
	if until := g.gates.now().Add(wait); until.After(g.closed) {
		g.closed, g.why = until, "the host fails"
	}
	hostsClosed.WithLabelValues("failing").Inc()
}

// answered notes that the host works.
func (g *gate) answered() {
	g.mu.Lock()
	g.failures = 0
	g.mu.Unlock()
}

// passOn notes that the host refers to others for repositories, or asks whether it
// did lately.
func (g *gate) passOn() {
	g.mu.Lock()
	g.redirected = g.gates.now()
	g.mu.Unlock()
}

func (g *gate) passesOn() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.redirected.IsZero() && g.gates.now().Sub(g.redirected) < redirectsKept
}
