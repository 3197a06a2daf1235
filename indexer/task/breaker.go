package task

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/layers-pub/layers-appview/internal/record"
)

// breaker keeps tasks away from a store that does not answer. Once tripped it is
// open: [breaker.wait] blocks while [breaker.run] asks the store, at growing and
// jittered intervals, whether it is back.
type breaker struct {
	target  record.Target
	ping    func(context.Context) error
	logger  *slog.Logger
	tripped chan struct{} // wakes run; has room for one

	mu    sync.Mutex
	back  chan struct{} // closed when the store is back; nil while it is well
	trips int           // since the last success; decides how long to wait
}

func newBreaker(target record.Target, ping func(context.Context) error, logger *slog.Logger) *breaker {
	return &breaker{target: target, ping: ping, logger: logger, tripped: make(chan struct{}, 1)}
}

// run watches over the store until ctx ends.
func (b *breaker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.tripped:
			b.ask(ctx)
		}
	}
}

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	pingTimeout  = 5 * time.Second
)

// backoff is a random time that grows with the number of failures before it:
// between half and the whole of 100 ms, 200 ms, … 10 s.
func backoff(failures int) time.Duration {
	d := longestPause
	if failures = max(failures, 0); failures < 7 {
		d = firstPause << failures
	}
	return d/2 + rand.N(d/2+1)
}

// wait returns at once while the store is well, and else when it is back. It
// reports whether it is: false if ctx ends or stop is closed first.
func (b *breaker) wait(ctx context.Context, stop <-chan struct{}) bool {
	b.mu.Lock()
	back := b.back
	b.mu.Unlock()
	if back == nil {
		return ctx.Err() == nil
	}
	select {
	case <-back:
		return ctx.Err() == nil
	case <-ctx.Done():
	case <-stop:
	}
	return false
}

// trip says that the store failed with err.
func (b *breaker) trip(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.back != nil {
		return
	}
	b.logger.Warn("store does not answer: holding its tasks back", "error", err)
	storeOpen.WithLabelValues(string(b.target)).Set(1)
	b.back = make(chan struct{})
	b.trips++
	b.tripped <- struct{}{}
}

// succeeded says that a write came through.
func (b *breaker) succeeded() {
	b.mu.Lock()
	b.trips = 0
	b.mu.Unlock()
}

// ask returns when the store answers or ctx ends.
func (b *breaker) ask(ctx context.Context) {
	began := time.Now()
	b.mu.Lock()
	failures := b.trips - 1
	b.mu.Unlock()
	for sleep(ctx, backoff(failures)) {
		asking, cancel := context.WithTimeout(ctx, pingTimeout)
		err := b.ping(asking)
		cancel()
		if err == nil {
			b.logger.InfoContext(ctx, "store answers again", "after", time.Since(began))
			break
		}
		failures++
	}
	storeOpen.WithLabelValues(string(b.target)).Set(0)
	b.mu.Lock()
	close(b.back)
	b.back = nil
	b.mu.Unlock()
}

// sleep waits for d and reports whether ctx is still alive after it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
