package live

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// item is an event with what it looks like, which is worked out once for all followers.
type item struct {
	store.Event
	once sync.Once
	json []byte
}

// hub reads the end of the log for all followers of a process.
type hub struct {
	stop context.CancelFunc

	mu        sync.Mutex
	items     []*item       // every event behind from, up to to
	from, to  int64         // places in the log
	bytes     int           // that items take, roughly
	followers int           //
	changed   chan struct{} // closed when to moves
}

const keptBytes = 16 << 20

// weight is roughly what an event takes in memory.
func (i *item) weight() int { return 1024 + 8*len(i.Targets) }

// join gives a follower the process's hub, which begins at the log's present end if
// it is the first.
func (s *Service) join(end int64) *hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hub == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.hub = &hub{stop: cancel, from: end, to: end, changed: make(chan struct{})}
		go s.tail(ctx, s.hub)
	}
	s.hub.followers++
	return s.hub
}

// leave ends the hub with its last follower.
func (s *Service) leave(h *hub) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.followers--; h.followers == 0 {
		h.stop()
		s.hub = nil
	}
}

// tail reads the log as it grows.
func (s *Service) tail(ctx context.Context, h *hub) {
	failing := false
	for {
		more, err := s.advance(ctx, h)
		wait := s.cfg.Poll
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			readFailures.Inc()
			if !failing {
				s.logger.ErrorContext(ctx, "the log of events cannot be read, will repeat", "error", err)
			}
			wait = max(wait, time.Second)
		case failing:
			s.logger.InfoContext(ctx, "the log of events is read again")
		}
		failing = err != nil
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// advance reads the next part of the log.
func (s *Service) advance(ctx context.Context, h *hub) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	at := h.end()
	page, err := s.log.Events(ctx, at)
	if err != nil {
		return false, err
	}
	if n := len(page.Events); n > 0 {
		lag.Observe(max(0, time.Since(page.Events[n-1].Time).Seconds()))
	}
	if page.Next < at && page.Since <= at {
		// A replica of the database that is further behind than the one asked before.
		return false, nil
	}
	h.publish(page, s.cfg.Kept)
	return page.More, nil
}

func (h *hub) end() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.to
}

// publish adds a part of the log, and lets go of what is too much.
func (h *hub) publish(page store.EventPage, kept int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if page.Since > h.to { // events are gone that nobody here has seen: everyone is told, when reading the log
		h.items, h.bytes, h.from = nil, 0, page.Since
	}
	if page.Next == h.to {
		return
	}
	for _, e := range page.Events {
		if e.OfAccount() && !e.Active {
			h.strike(e.Key.DID)
		}
		i := &item{Event: e}
		h.items, h.bytes = append(h.items, i), h.bytes+i.weight()
	}
	h.to = page.Next
	drop := 0
	for len(h.items)-drop > kept || h.bytes > keptBytes && drop < len(h.items) {
		h.bytes -= h.items[drop].weight()
		h.from = h.items[drop].Cursor
		drop++
	}
	h.items = slices.Clone(h.items[drop:])
	close(h.changed)
	h.changed = make(chan struct{})
}

// strike takes out what is there of an account that is not to be seen any more.
func (h *hub) strike(did syntax.DID) {
	h.items = slices.DeleteFunc(slices.Clone(h.items), func(i *item) bool {
		gone := i.Key.DID == did && !i.OfAccount()
		if gone {
			h.bytes -= i.weight()
		}
		return gone
	})
}

// errBehind says that the hub has not all events behind a place any more.
var errBehind = errors.New("further behind than the events in memory")

// after returns some events behind a place and the place behind those. Without any,
// changed tells when to ask again. lag is how far the place is behind the end.
func (h *hub) after(place int64) (items []*item, next, lag int64, changed <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if place < h.from {
		return nil, 0, h.to - place, nil, errBehind
	}
	at, _ := slices.BinarySearchFunc(h.items, place+1, func(i *item, cursor int64) int { return int(i.Cursor - cursor) })
	items = h.items[at:min(len(h.items), at+sentAtOnce)]
	next = max(h.to, place)
	if len(items) == sentAtOnce {
		next = items[sentAtOnce-1].Cursor
	}
	return items, next, h.to - place, h.changed, nil
}
