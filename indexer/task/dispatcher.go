package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// outbox is the durable list of what the projections have yet to do.
type outbox interface {
	// Claim leases up to limit rows that nobody holds.
	Claim(ctx context.Context, target record.Target, limit int, lease time.Duration) ([]record.Pending, error)
	// Release ends the lease of rows, which may be claimed again after delay.
	Release(ctx context.Context, target record.Target, rows []record.Pending, delay time.Duration) error
	// Depth is how much a target is behind.
	Depth(ctx context.Context, target record.Target) (store.Depth, error)
	// Done deletes rows, but for those that have been replaced by a newer version.
	Done(ctx context.Context, target record.Target, rows []record.Pending) error
}

// Dispatcher moves outbox rows into Redis, as tasks of many records each. Any
// number of dispatchers may run.
type Dispatcher struct {
	cfg    Config
	outbox outbox
	redis  *redis.Client
}

// NewDispatcher prepares a dispatcher; it does not connect. Errors are of the configuration.
func NewDispatcher(cfg Config, outbox outbox) (*Dispatcher, error) {
	client, err := openRedis(cfg.RedisURL, cfg.Roots)
	if err != nil {
		return nil, err
	}
	return &Dispatcher{cfg: cfg.withDefaults(), outbox: outbox, redis: client}, nil
}

// Run dispatches until ctx ends, which is not an error. A store that is down
// makes it wait, never return.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer closeRedis(d.redis)
	var group errgroup.Group
	for _, target := range d.cfg.Targets {
		line := newDispatchLine(d, target)
		group.Go(func() error { line.run(ctx); return nil })
		group.Go(func() error { line.measure(ctx); return nil })
	}
	return group.Wait()
}

// dispatchLine serves one target, so that none waits for another.
type dispatchLine struct {
	cfg    Config
	target record.Target
	outbox outbox
	queue  *queueSet
	traces *store.Traces // nil where nobody asks
	logger *slog.Logger

	failures int           // in a row
	idle     time.Duration // the last wait on an empty outbox
	sent     time.Time     // when the one task went off that is sent while the line is behind
	rest     time.Time     // until when the next one waits
}

func newDispatchLine(d *Dispatcher, target record.Target) *dispatchLine {
	return &dispatchLine{
		cfg: d.cfg, target: target, outbox: d.outbox,
		queue:  newQueueSet(d.redis, target),
		traces: d.cfg.Traces,
		logger: d.cfg.Logger.With("component", "dispatcher", "target", string(target)),
	}
}

const (
	shortestIdle = 5 * time.Millisecond
	fullPause    = 25 * time.Millisecond // between two looks at queues that are full

	// While the line is behind, a target has one task under way and then rests for
	// this many times as long as that took: so the line has the processors and
	// PostgreSQL nearly to itself, and no projection stands still.
	restShare = 4
)

func (l *dispatchLine) run(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, l.runOnce(ctx))
	}
}

const measureEvery = 5 * time.Second

// measure keeps the metrics of how much the target is behind.
func (l *dispatchLine) measure(ctx context.Context) {
	for sleep(ctx, measureEvery) {
		l.queue.show()
		depth, err := l.outbox.Depth(ctx, l.target)
		if err != nil {
			continue // dispatching says so
		}
		outboxRows.WithLabelValues(string(l.target)).Set(float64(depth.Rows))
		outboxSweeps.WithLabelValues(string(l.target)).Set(float64(depth.Sweeps))
		outboxAge.WithLabelValues(string(l.target)).Set(depth.Oldest.Seconds())
	}
}

// runOnce dispatches once and returns how long to wait before the next time.
func (l *dispatchLine) runOnce(ctx context.Context) time.Duration {
	n, err := l.dispatch(ctx)
	switch {
	case errors.Is(err, errFull):
		return fullPause
	case err != nil:
		if ctx.Err() == nil {
			l.logger.WarnContext(ctx, "dispatching outbox rows failed, will try again", "error", err)
		}
		l.failures++
		return backoff(l.failures - 1)
	case n >= l.cfg.BatchSize:
		l.failures, l.idle = 0, 0
		return 0
	case n > 0: // the next task is to be fuller: one of a single record costs as much as one of twenty
		l.failures, l.idle = 0, 0
		return l.cfg.Idle
	default:
		l.failures = 0
		l.idle = min(max(2*l.idle, shortestIdle), l.cfg.Idle)
		return l.idle
	}
}

var errFull = errors.New("the target's queues are full")

// room is how many tasks may be enqueued now.
func (l *dispatchLine) room(ctx context.Context) (int, error) {
	if !l.cfg.Behind() {
		l.sent, l.rest = time.Time{}, time.Time{}
		return l.queue.room(ctx, l.cfg.InFlight)
	}
	now := time.Now()
	if now.Before(l.rest) {
		return 0, nil
	}
	if idle, err := l.queue.idle(ctx); err != nil || !idle {
		return 0, err
	}
	if !l.sent.IsZero() {
		l.rest, l.sent = now.Add(restShare*now.Sub(l.sent)), time.Time{}
		return 0, nil
	}
	l.sent = now
	return 1, nil
}

// dispatch claims as many rows as the target's queues have room for and enqueues them.
func (l *dispatchLine) dispatch(ctx context.Context) (rows int, err error) {
	room, err := l.room(ctx)
	if err != nil {
		return 0, err
	}
	if room == 0 {
		return 0, errFull
	}
	claimed, err := l.outbox.Claim(ctx, l.target, room*l.cfg.BatchSize, l.cfg.Lease)
	if err != nil {
		return 0, fmt.Errorf("claiming outbox rows: %w", err)
	}
	batches := split(claimed, l.cfg.BatchSize)
	traces := l.tracesOf(ctx, claimed)
	for i, b := range batches {
		if err := l.enqueue(ctx, b, traces); err != nil {
			l.giveBack(ctx, batches[i:])
			return 0, err
		}
	}
	dispatched.WithLabelValues(string(l.target)).Add(float64(len(claimed)))
	return len(claimed), nil
}

func (l *dispatchLine) enqueue(ctx context.Context, b batch, traces []store.Trace) (err error) {
	parents := parentsOf(b.rows, traces)
	if len(parents) > 0 {
		var span telemetry.Span
		ctx, span = telemetry.Begin(ctx, "asynq publish "+b.queue.name(l.target), trace.SpanKindProducer, time.Now(), parents, attribute.Int("layers.records", len(b.rows)))
		defer func() { span.End(err) }()
		if len(parents) == 1 {
			parents[0] = telemetry.Parent(ctx)
		}
	}
	raw, err := encodePayload(l.target, b.rows, parents)
	if err != nil {
		return err
	}
	return l.queue.enqueue(ctx, b.queue, asynq.NewTask(taskType, raw), asynq.Timeout(l.cfg.Timeout))
}

// giveBack releases rows that could not be enqueued. If that fails too, their
// lease runs out.
func (l *dispatchLine) giveBack(ctx context.Context, batches []batch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	for _, b := range batches {
		if err := l.outbox.Release(ctx, l.target, b.rows, 0); err != nil {
			l.logger.WarnContext(ctx, "releasing outbox rows failed, their lease has to run out", "error", err)
			return
		}
	}
}

const giveBackTimeout = 5 * time.Second

// batch is the content of one task.
type batch struct {
	queue Queue
	rows  []record.Pending
}

// crowd is from how many rows of one version on they are taken for maintenance. A
// change has a version of its own, and shares it with the few records that waited
// for it; so many rows are of a re-index, a repair, or a repository that came or went.
const crowd = 64

// split groups rows by queue, the most urgent first, into batches of at most size.
func split(rows []record.Pending, size int) []batch {
	sharing := map[int64]int{} // rows of one version
	for _, r := range rows {
		sharing[r.Version]++
	}
	byQueue := map[Queue][]record.Pending{}
	for _, r := range rows {
		q := QueueOf(r.Key.Collection)
		if sharing[r.Version] >= crowd {
			q = Maintenance
		}
		byQueue[q] = append(byQueue[q], r)
	}
	var out []batch
	for _, q := range queues {
		for part := range slices.Chunk(byQueue[q], size) {
			out = append(out, batch{queue: q, rows: part})
		}
	}
	return out
}
