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
// open: [breaker.wait] blocks while one goroutine asks the store, at growing and
// jittered intervals, whether it is back.
type breaker struct {
	target record.Target
	ping   func(context.Context) error
	life   context.Context // of the process's workers; ends the asking
	logger *slog.Logger

	mu    sync.Mutex
	back  chan struct{} // closed when the store is back; nil while it is well
	trips int           // since the last success; decides how long to wait
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
	if failures < 7 {
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
	b.logger.WarnContext(b.life, "store does not answer: holding its tasks back", "error", err)
	storeOpen.WithLabelValues(string(b.target)).Set(1)
	b.back = make(chan struct{})
	go b.ask(b.trips)
	b.trips++
}

// succeeded says that a write came through.
func (b *breaker) succeeded() {
	b.mu.Lock()
	b.trips = 0
	b.mu.Unlock()
}

func (b *breaker) ask(failures int) {
	began := time.Now()
	for sleep(b.life, backoff(failures)) {
		ctx, cancel := context.WithTimeout(b.life, pingTimeout)
		err := b.ping(ctx)
		cancel()
		if err == nil {
			b.logger.InfoContext(b.life, "store answers again", "after", time.Since(began))
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
