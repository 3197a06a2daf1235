package task

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// reader gives records as they are now.
type reader interface {
	// Load leaves out what is not there, or not to be shown.
	Load(ctx context.Context, keys []record.Key) (map[record.Key]record.Record, error)
}

// letters keeps what cannot be projected.
type letters interface {
	Add(ctx context.Context, letters []store.DeadLetter) error
}

// worker carries out the tasks of one target.
type worker struct {
	target  record.Target
	reader  reader
	outbox  outbox
	letters letters
	sink    sink
	breaker *breaker
	memory  *semaphore.Weighted // bytes of records that are being projected in this process
	stop    <-chan struct{}     // closed when no new work is to be begun
	hold    time.Duration       // how long a task waits for the store before it is given back
	logger  *slog.Logger
}

// A record has up to 1 MB and its projections several times that, so few are
// loaded at a time, and fewer still are projected at a time.
const (
	loadRecords   = 32
	writeBytes    = 4 << 20
	memoryBytes   = 32 << 20 // of all workers of a process together
	settleTimeout = 10 * time.Second
	refusedPause  = 2 * time.Second // before a record is tried again that the store put off
)

// process is the handler of every task. It fails only where asynq is to drop the
// task: the outbox has its rows and dispatches them again.
func (w *worker) process(ctx context.Context, t *asynq.Task) (err error) {
	began := time.Now()
	target, rows, traces, err := decodePayload(t.Payload())
	if err == nil && target != w.target {
		err = fmt.Errorf("task for %q in a queue of %q", target, w.target)
	}
	if len(traces) > 0 {
		var span telemetry.Span
		ctx, span = telemetry.Begin(ctx, "project "+string(w.target), trace.SpanKindConsumer, began, traces, attribute.Int("layers.records", len(rows)))
		defer func() { span.End(err) }()
	}
	if err == nil {
		err = w.run(ctx, rows)
	}
	taskSeconds.WithLabelValues(string(w.target)).Observe(time.Since(began).Seconds())
	if err != nil {
		w.logger.WarnContext(ctx, "task dropped, its rows will be dispatched again", "error", err)
		return fmt.Errorf("%w: %w", err, asynq.RevokeTask)
	}
	return nil
}

// run brings the records of rows up to date and settles the rows. An error means
// that PostgreSQL failed.
func (w *worker) run(ctx context.Context, rows []record.Pending) error {
	items := group(rows)
	holding, cancel := context.WithTimeout(ctx, w.hold)
	defer cancel()
	for len(items) > 0 {
		if !w.breaker.wait(holding, w.stop) {
			return w.giveBack(ctx, items)
		}
		n, bytes, err := w.load(ctx, items)
		if err != nil {
			return err
		}
		if err := w.write(ctx, items[:n], bytes); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// group gathers the rows of each record.
func group(rows []record.Pending) []item {
	items := make([]item, 0, len(rows))
	at := make(map[record.Key]int, len(rows))
	for _, r := range rows {
		i, ok := at[r.Key]
		if !ok {
			i = len(items)
			at[r.Key] = i
			items = append(items, item{key: r.Key})
		}
		items[i].rows = append(items[i].rows, r)
	}
	return items
}

// load sets what is present of the first items, as many as are to be written
// together, and returns their number and the size of their values.
func (w *worker) load(ctx context.Context, items []item) (n, bytes int, err error) {
	for n < len(items) && bytes < writeBytes {
		part := items[n:min(n+loadRecords, len(items))]
		keys := make([]record.Key, len(part))
		for i := range part {
			keys[i] = part[i].key
		}
		present, err := w.reader.Load(ctx, keys)
		if err != nil {
			return 0, 0, fmt.Errorf("loading %d records: %w", len(keys), err)
		}
		for i := range part {
			if rec, ok := present[part[i].key]; ok {
				part[i].present = &rec
				bytes += len(rec.Value)
			}
		}
		n += len(part)
	}
	return n, bytes, nil
}

// write brings items up to date and settles their rows.
func (w *worker) write(ctx context.Context, items []item, bytes int) error {
	weight := int64(min(bytes, memoryBytes))
	if err := w.memory.Acquire(ctx, weight); err != nil {
		return w.giveBack(ctx, items)
	}
	failures := w.sink.write(ctx, items)
	w.memory.Release(weight)
	return w.settle(ctx, items, failures)
}

// settle deletes the rows of what is written or given up, and leaves the others
// for later.
func (w *worker) settle(ctx context.Context, items []item, failures []failure) error {
	failed := make(map[record.Key]failure, len(failures))
	for _, f := range failures {
		failed[f.key] = f
	}
	var done, later []record.Pending
	var dead []failure
	var cause error // of what may succeed later
	for _, it := range items {
		f, bad := failed[it.key]
		switch {
		case !bad:
			done = append(done, it.rows...)
			w.count(it.outcome())
		case f.retryable:
			later = append(later, it.rows...)
			cause = f.err
			w.count("retried")
		default:
			done = append(done, it.rows...)
			dead = append(dead, f.of(it))
			w.count("dead")
		}
	}
	w.judge(ctx, len(done) > 0, cause)

	// What is written is written: the rows are settled also when ctx is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := w.bury(ctx, dead); err != nil {
		return err
	}
	if err := w.done(ctx, done); err != nil {
		return err
	}
	return w.release(ctx, later, refusedPause/2+rand.N(refusedPause))
}

// judge tells the breaker how the store did. A store that took something works;
// one that refused all is asked before more is tried.
func (w *worker) judge(ctx context.Context, worked bool, cause error) {
	switch {
	case worked:
		w.breaker.succeeded()
	case cause != nil && ctx.Err() == nil:
		w.breaker.trip(cause)
	}
}

// bury gives what cannot be projected to the dead letters.
func (w *worker) bury(ctx context.Context, dead []failure) error {
	if len(dead) == 0 {
		return nil
	}
	list := make([]store.DeadLetter, len(dead))
	for i, f := range dead {
		w.logger.WarnContext(ctx, "record cannot be projected, dead letter", "uri", f.key.String(), "error", f.err)
		list[i] = store.DeadLetter{
			DID: f.key.DID, Collection: f.key.Collection, Rkey: f.key.Rkey, Rev: f.rev, CID: f.cid,
			Stage: Stage(w.target), Class: "permanent", Reason: f.err.Error(),
		}
	}
	return w.letters.Add(ctx, list)
}

// Stage is the stage of a target's dead letters.
func Stage(target record.Target) string { return "project:" + string(target) }

func (w *worker) done(ctx context.Context, rows []record.Pending) error {
	if len(rows) == 0 {
		return nil
	}
	return w.outbox.Done(ctx, w.target, rows)
}

func (w *worker) release(ctx context.Context, rows []record.Pending, delay time.Duration) error {
	if len(rows) == 0 {
		return nil
	}
	return w.outbox.Release(ctx, w.target, rows, delay)
}

// giveBack lets others have what this process has no time for.
func (w *worker) giveBack(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	var rows []record.Pending
	for _, it := range items {
		rows = append(rows, it.rows...)
	}
	return w.release(ctx, rows, 0)
}

func (w *worker) count(outcome string) { projected.WithLabelValues(string(w.target), outcome).Inc() }
