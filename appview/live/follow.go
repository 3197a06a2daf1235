package live

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// sentAtOnce is how many events are looked at between two looks at everything else.
const sentAtOnce = 200

// sink is where a follower's events go. Each call may take as long as the client has
// to take what it is sent; after an error nothing more can be sent.
type sink interface {
	event(i *item, value json.RawMessage) error
	info(notice) error
	failure(notice) error
	position(cursor int64) error // also shows that the connection lives
	flush() error
}

// notice tells a follower about its following.
type notice struct {
	Name, Message string
	Cursor        int64 // where to go on
}

// Names of notices.
const (
	outdatedCursor  = "OutdatedCursor"
	futureCursor    = "FutureCursor"
	consumerTooSlow = "ConsumerTooSlow"
	goingAway       = "GoingAway"
)

// follower is one who follows, and how far that is.
type follower struct {
	*Service
	question Question
	out      sink
	place    int64 // all that is before it has been sent
	level    bool  // it has been up to date once
	wrote    time.Time
}

// start finds where a question begins. outdated says that events behind its cursor
// are gone.
func (s *Service) start(ctx context.Context, q *Question) (place, end int64, outdated bool, err error) {
	deadline := time.Now().Add(s.cfg.FutureWait)
	for {
		page, err := s.bounds(ctx, q.cursor)
		switch {
		case errors.Is(err, store.ErrNoEvents):
			return 0, 0, false, &xrpc.Error{Status: http.StatusNotImplemented, Name: "MethodNotImplemented", Message: "this service keeps no log of events"}
		case err != nil:
			return 0, 0, false, err
		case q.cursor == nil:
			return page.Head, page.Head, false, nil
		case *q.cursor < page.Since:
			return page.Since, page.Head, true, nil
		case *q.cursor <= page.Head:
			return *q.cursor, page.Head, false, nil
		case time.Now().After(deadline):
			return 0, 0, false, &xrpc.Error{
				Status: http.StatusBadRequest, Name: futureCursor,
				Message: "the cursor is beyond the end of the log: expected one from an event of this service",
			}
		}
		select { // a replica of the database may be behind the one that the cursor is from
		case <-ctx.Done():
			return 0, 0, false, ctx.Err()
		case <-time.After(s.cfg.Poll):
		}
	}
}

// follow sends events until the client goes, cannot keep up, or the process ends.
// Only what happens to the connection is an error.
func (s *Service) follow(ctx context.Context, q Question, place, end int64, outdated bool, out sink) error {
	f := &follower{Service: s, question: q, out: out, place: place, wrote: time.Now()}
	h := s.join(end)
	defer s.leave(h)
	if outdated {
		if err := f.tellOutdated(place); err != nil {
			return err
		}
	}
	if err := f.beat(); err != nil { // so that the client knows where it has begun
		return err
	}
	for {
		done, err := f.step(ctx, h)
		if errors.Is(err, errDraining) {
			continue // and be told
		}
		if done || err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// step sends what there is, or waits for it.
func (f *follower) step(ctx context.Context, h *hub) (done bool, err error) {
	select {
	case <-f.draining:
		dropped.WithLabelValues("drain").Inc()
		return true, f.end(f.out.info, notice{goingAway, "this server is stopping; connect again with the cursor", f.place})
	default:
	}
	items, next, lag, changed, err := h.after(f.place)
	switch {
	case f.level && lag > f.cfg.Lag:
		dropped.WithLabelValues("slow").Inc()
		return true, f.end(f.out.failure, notice{consumerTooSlow, "too far behind what happens; connect again with the cursor", f.place})
	case errors.Is(err, errBehind):
		return false, f.catchUp(ctx)
	case len(items) > 0:
		f.level = f.level || len(items) < sentAtOnce
		return false, f.send(ctx, items, next)
	}
	f.level, f.place = true, max(f.place, next)
	return false, f.wait(ctx, changed)
}

// wait returns when there may be something to do. Now and then it lets the client hear
// that the connection lives.
func (f *follower) wait(ctx context.Context, changed <-chan struct{}) error {
	quiet := time.NewTimer(f.cfg.Heartbeat - time.Since(f.wrote))
	defer quiet.Stop()
	select {
	case <-ctx.Done():
	case <-f.draining:
	case <-changed:
	case <-quiet.C:
		return f.beat()
	}
	return nil
}

// catchUp sends a part of the log that is not in memory any more.
func (f *follower) catchUp(ctx context.Context) error {
	page, err := f.read(ctx, f.place)
	if err != nil {
		readFailures.Inc()
		return f.wait(ctx, after(ctx, time.Second)) // the store will be back
	}
	if f.place < page.Since {
		f.place = page.Since
		return f.tellOutdated(page.Since)
	}
	return f.send(ctx, itemsOf(page.Events), page.Next)
}

func itemsOf(events []store.Event) []*item {
	items := make([]*item, len(events))
	for i, e := range events {
		items[i] = &item{Event: e}
	}
	return items
}

// after closes a channel when a time has passed.
func after(ctx context.Context, d time.Duration) <-chan struct{} {
	passed, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(passed, cancel)
	return passed.Done()
}

// send sends those of some events that are asked for; next is the place behind them.
func (f *follower) send(ctx context.Context, items []*item, next int64) error {
	wanted := items[:0:0]
	for _, i := range items {
		if f.question.wants(&i.Event) {
			wanted = append(wanted, i)
		}
	}
	for len(wanted) > 0 {
		together := wanted[:min(len(wanted), f.together())]
		wanted = wanted[len(together):]
		if err := f.sendTogether(ctx, together); err != nil {
			return err
		}
	}
	f.place = max(f.place, next)
	if time.Since(f.wrote) > f.cfg.Heartbeat {
		return f.beat()
	}
	return nil
}

// together is how many events are made ready at a time.
func (f *follower) together() int {
	if f.question.values {
		return 16 // of up to 1 MB each
	}
	return sentAtOnce
}

func (f *follower) sendTogether(ctx context.Context, items []*item) error {
	loaded, err := f.load(ctx, items)
	if err != nil {
		return err
	}
	for _, i := range items {
		var value json.RawMessage
		if r, ok := loaded[i.Key]; ok {
			value = fitting(&i.Event, r)
		}
		if err := f.out.event(i, value); err != nil {
			return err
		}
		f.place = i.Cursor
	}
	f.wrote = time.Now()
	sent.Add(float64(len(items)))
	return f.out.flush()
}

// load reads the values that events are to come with, for as long as the store is away.
func (f *follower) load(ctx context.Context, items []*item) (map[record.Key]record.Record, error) {
	if !f.question.values {
		return nil, nil
	}
	var keys []record.Key
	for _, i := range items {
		if i.CID != "" {
			keys = append(keys, i.Key)
		}
	}
	for len(keys) > 0 {
		loaded, err := f.values(ctx, keys)
		if err == nil {
			return loaded, nil
		}
		readFailures.Inc()
		if err := f.wait(ctx, after(ctx, time.Second)); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.draining:
			return nil, errDraining
		default:
		}
	}
	return nil, nil
}

// errDraining ends a follower that waits for a store while the process ends.
var errDraining = errors.New("the process ends")

func (f *follower) beat() error {
	f.wrote = time.Now()
	if err := f.out.position(f.place); err != nil {
		return err
	}
	return f.out.flush()
}

func (f *follower) tellOutdated(since int64) error {
	return f.end(f.out.info, notice{outdatedCursor, "events behind the cursor are not kept any more: what follows begins later", since})
}

// end sends a notice.
func (f *follower) end(how func(notice) error, what notice) error {
	if err := how(what); err != nil {
		return err
	}
	return f.out.flush()
}

// present sends what there is behind a place at present, and ends.
func (s *Service) present(ctx context.Context, q Question, place int64, outdated bool, out sink) error {
	f := &follower{Service: s, question: q, out: out, place: place, wrote: time.Now()}
	if outdated {
		if err := f.tellOutdated(place); err != nil {
			return err
		}
	}
	for {
		page, err := s.read(ctx, f.place)
		if err != nil {
			return f.end(out.failure, notice{"ServiceUnavailable", "the log cannot be read at the moment; ask again with the cursor", f.place})
		}
		if err := f.send(ctx, itemsOf(page.Events), page.Next); err != nil {
			return err
		}
		if !page.More {
			return f.beat()
		}
	}
}
