package cache

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/layers-pub/layers-appview/internal/store"
)

// flights are the answers that are being worked out.
type flights struct {
	mu    sync.Mutex
	byKey map[string]*flight
}

// flight is one of them. It ends when all who wait for it have gone.
type flight struct {
	began  int64 // version before it began
	done   chan struct{}
	result result

	flights *flights
	waiting int
	cancel  context.CancelFunc
}

type result struct {
	answer Answer
	err    error
	after  func(context.Context) // what is left to do once nobody waits any more
}

const afterTime = time.Second

// join takes part in the flight with a key, unless that began too early, or begins one
// that works with the first caller's time but does not end with its context. Whoever
// comes later joins the latest. Who joins must wait.
func (f *flights) join(ctx context.Context, key string, now store.Versions, early func(*flight) bool, work func(context.Context) result) (_ *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.byKey[key]; one != nil && !early(one) {
		one.waiting++
		return one, true
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if deadline, ok := ctx.Deadline(); ok {
		working, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	one := &flight{began: now.Clock, done: make(chan struct{}), flights: f, waiting: 1, cancel: cancel}
	if f.byKey == nil {
		f.byKey = map[string]*flight{}
	}
	f.byKey[key] = one
	go one.run(working, key, work)
	return one, false
}

func (o *flight) run(ctx context.Context, key string, work func(context.Context) result) {
	o.result = safely(ctx, work)
	o.flights.forget(key, o)
	close(o.done)
	o.cancel()
	if o.result.after != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterTime)
		defer cancel()
		o.result.after(ctx)
	}
}

// safely turns a panic into an error, as the server does for requests of their own.
func safely(ctx context.Context, work func(context.Context) result) (r result) {
	defer func() {
		if p := recover(); p != nil {
			r = result{err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	return work(ctx)
}

// forget makes the next who asks begin anew.
func (f *flights) forget(key string, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey[key] == one {
		delete(f.byKey, key)
	}
}

// wait returns what was worked out, or when ctx ends. The last to go ends the work.
func (o *flight) wait(ctx context.Context) (Answer, error) {
	select {
	case <-o.done:
		return o.result.answer, o.result.err
	case <-ctx.Done():
	}
	o.flights.mu.Lock()
	defer o.flights.mu.Unlock()
	if o.waiting--; o.waiting == 0 {
		for key, one := range o.flights.byKey {
			if one == o { // who comes now must not join what is ending
				delete(o.flights.byKey, key)
			}
		}
		o.cancel()
	}
	return Answer{}, ctx.Err()
}
