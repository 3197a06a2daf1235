package indexer

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
)

// line is one run of the indexer while it holds the lock.
type line struct {
	Config
	repos   *repoStates
	cursors *cursors
	handles *handleChecker
	window  *window
	holds   *holds
	gate    *gate
	slots   chan *slot // in the order of the stream
	jobs    chan *slot // the same, for whichever worker is free
	orders  chan order // to be carried out between two batches
	turns   turns
	taken   takenCounters
	ended   chan struct{}

	settling *semaphore.Weighted // one repository's held events are in memory at a time
}

// slot is a frame's place in the order: workers fill in the outcome and close done,
// the applying stage waits for each in turn.
type slot struct {
	frame   firehose.Frame
	outcome outcome
	done    chan struct{}

	read, began, ended time.Time // of the frame and its examination; only where traces are exported
}

func (s *slot) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func newLine(ctx context.Context, cfg Config) (*line, error) {
	l := &line{
		Config:  cfg,
		repos:   newRepoStates(cfg.Writer),
		cursors: newCursors(cfg.Writer),
		handles: newHandleChecker(cfg.VerifiedHandle, cfg.Logger),
		window:  newWindow(cfg.Window, cfg.WindowBytes),
		holds:   newHolds(),
		gate:    newGate(),
		turns:   newTurns(),
		taken:   newTakenCounters(cfg.Catalog),
		orders:  make(chan order),
		ended:   make(chan struct{}),

		settling: semaphore.NewWeighted(1),
		slots:    make(chan *slot, cfg.Window),
		jobs:     make(chan *slot, cfg.Window),
	}
	if err := l.persist(ctx, "loading the followed repositories", l.repos.loadTracked); err != nil {
		return nil, fmt.Errorf("loading the followed repositories: %w", err)
	}
	if err := l.recoverFetches(ctx); err != nil {
		return nil, fmt.Errorf("taking up interrupted fetches: %w", err)
	}
	return l, nil
}

// run starts the stages and waits for all of them to end.
func (l *line) run(ctx context.Context) error {
	defer lag.waiting.Store(0) // what the run leaves is read again by the next one
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return l.Firehose.Run(ctx, l.resume, func(f firehose.Frame) error { return l.emit(ctx, f) })
	})
	for range l.Workers {
		group.Go(func() error { return l.work(ctx) })
	}
	group.Go(func() error { return l.handles.run(ctx) })
	group.Go(func() error { return l.apply(ctx) })
	l.runBeside(ctx, group)
	return group.Wait()
}

// runBeside starts what is not on the way of an event.
func (l *line) runBeside(ctx context.Context, group *errgroup.Group) {
	if l.Resync != nil {
		group.Go(func() error { return l.Resync.Run(ctx, l) })
	}
	if l.Discovery != nil {
		group.Go(func() error { return l.Discovery.Run(ctx) })
	}
	if l.Replays != nil {
		group.Go(func() error { return l.Replays.Run(ctx) })
	}
	if l.Outbox != nil {
		group.Go(func() error { return l.watchOutbox(ctx) })
	}
}

// emit gives a frame its place. It blocks while the window is full, or while the
// projections are too far behind.
func (l *line) emit(ctx context.Context, frame firehose.Frame) error {
	read := traceTime()
	lag.came()
	if err := l.room(ctx, frame); err != nil {
		lag.left(1)
		return err
	}
	s := &slot{frame: frame, done: make(chan struct{}), read: read}
	for _, stage := range []chan *slot{l.slots, l.jobs} {
		select {
		case stage <- s:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// room waits until the frame may come in.
func (l *line) room(ctx context.Context, frame firehose.Frame) error {
	if err := l.gate.wait(ctx); err != nil {
		return err
	}
	return l.window.enter(ctx, len(frame.Data))
}

func (l *line) work(ctx context.Context) error {
	ctx = verify.Aside(ctx, l.turns.leave, l.turns.take)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-l.jobs:
			l.turns.take()
			s.began = traceTime()
			s.outcome = l.examine(ctx, s.frame)
			s.ended = traceTime()
			l.turns.leave()
			close(s.done)
		}
	}
}

// resume names the cursor for a new connection. It waits until what was read from
// the connection before has been applied, so that nothing is read twice.
func (l *line) resume(ctx context.Context, host string) (int64, bool, error) {
	if err := l.window.drained(ctx); err != nil {
		return 0, false, err
	}
	return l.cursors.of(ctx, host, l.repos.any())
}

// apply takes outcomes in order, as many as are ready, and applies them together:
// under load batches grow, when it is quiet an event waits for nothing.
func (l *line) apply(ctx context.Context) error {
	defer close(l.ended)
	tick := time.NewTicker(l.CursorEvery)
	defer tick.Stop()
	var next *slot // taken from the line, and in no batch yet
	for {
		b := &batch{}
		slots, done := l.slots, chan struct{}(nil)
		if next != nil {
			slots, done = nil, next.done
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if !l.cursors.unsaved() {
				continue
			}
		case o := <-l.orders:
			if err := l.obey(ctx, o); err != nil {
				return err
			}
			continue
		case h := <-l.handles.checked:
			b.handles = append(b.handles, h)
		case s := <-slots:
			next, err = l.gather(ctx, b, s)
		case <-done:
			next, err = l.gather(ctx, b, next)
		}
		if err == nil {
			err = l.commit(ctx, b)
		}
		if err != nil {
			return err
		}
	}
}

// gather waits for the first slot and adds those that follow it. It waits for what is
// being examined, since small batches cost more for each event; but not while there is
// a good part of a batch for PostgreSQL to begin with: then the slot that is not done is
// left for the next batch.
func (l *line) gather(ctx context.Context, b *batch, s *slot) (left *slot, err error) {
	for {
		if b.bytes >= l.BatchBytes/4 && !s.isDone() {
			return s, nil
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		b.add(s)
		if len(b.slots) >= l.BatchEvents || b.bytes >= l.BatchBytes {
			return nil, nil
		}
		select {
		case s = <-l.slots:
		default:
			return nil, nil
		}
	}
}

// batch is what one transaction will apply.
type batch struct {
	slots   []*slot
	handles []checkedHandle
	bytes   int64
}

func (b *batch) add(s *slot) {
	b.slots = append(b.slots, s)
	b.bytes += int64(len(s.frame.Data))
}

// dids lists the repositories that the batch touches, once each.
func (b *batch) dids() []syntax.DID {
	seen := make(map[syntax.DID]struct{}, len(b.slots))
	var out []syntax.DID
	add := func(did syntax.DID) {
		if _, ok := seen[did]; !ok && did != "" {
			seen[did] = struct{}{}
			out = append(out, did)
		}
	}
	for _, s := range b.slots {
		add(s.outcome.did)
	}
	for _, h := range b.handles {
		add(h.did)
	}
	return out
}
