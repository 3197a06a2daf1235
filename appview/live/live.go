// Package live tells those who follow the index what changes in it, as server-sent
// events and over WebSockets.
//
// All of it is read from the store's log of events, which the indexer writes with the
// records themselves, so every API process tells the same in the same order, and a
// cursor from one holds at any other. Each process reads the end of the log once for
// all who follow (hub.go) and keeps a little of it in memory; who is further behind
// reads the log (follow.go). Nothing is queued for anyone: a follower is a place in
// the log, and one who falls too far behind is told so and dropped.
package live

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// log is what is asked of the store; *store.Reader has it.
type log interface {
	Events(ctx context.Context, after int64) (store.EventPage, error)
	LoadAll(context.Context, []record.Key) (map[record.Key]record.Record, error)
}

// names resolves what parameters name; *xrpc.Service has it.
type names interface {
	DID(ctx context.Context, parameter string, id syntax.AtIdentifier) (syntax.DID, error)
	Names(ctx context.Context, parameter, text string) ([]string, error)
}

// Config bounds what following may take. The zero value of a field means its default.
type Config struct {
	Origins    []string      // of pages that may open a WebSocket; default: any, "*"
	Followers  int           // in this process at a time; default 1000
	PerClient  int           // of one client's address; default 20
	Lag        int64         // changes that a follower may be behind who was up to date once; default 100,000
	Poll       time.Duration // how often the end of the log is read; default 200 ms
	Heartbeat  time.Duration // after which a follower hears of where the log is, if of nothing else; default 15 s
	SendTime   time.Duration // for a client to take what it is sent; default 30 s
	FutureWait time.Duration // for a replica of the database to come to a cursor; default 3 s
	Kept       int           // events in memory; default 8192
}

func (c Config) withDefaults() Config {
	c.Followers = cmp.Or(c.Followers, 1000)
	c.PerClient = cmp.Or(c.PerClient, 20)
	c.Lag = cmp.Or(c.Lag, 100_000)
	c.Poll = cmp.Or(c.Poll, 200*time.Millisecond)
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.SendTime = cmp.Or(c.SendTime, 30*time.Second)
	c.FutureWait = cmp.Or(c.FutureWait, 3*time.Second)
	c.Kept = cmp.Or(c.Kept, 8192)
	return c
}

// Bounds of what is asked of the store.
const (
	readTime    = 10 * time.Second
	readsAtOnce = 4         // by those who are behind, or want values
	mostNamed   = 200       // values of one parameter
	valueBytes  = 256 << 10 // of a record's value; a larger one is to be fetched by itself
	againAfter  = 10 * time.Second
)

// Service lets clients follow the index.
type Service struct {
	cfg    Config
	log    log
	names  names
	logger *slog.Logger
	reads  chan struct{} // one for each read of the store that may be under way

	draining chan struct{}
	running  sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	clients map[string]int
	all     int
	hub     *hub // nil while nobody follows
}

// New makes a service.
func New(cfg Config, from log, names names, logger *slog.Logger) *Service {
	return &Service{
		cfg: cfg.withDefaults(), log: from, names: names, logger: logger.With("component", "live"),
		reads: make(chan struct{}, readsAtOnce), draining: make(chan struct{}), clients: map[string]int{},
	}
}

// Drain tells all who follow that this process ends, and returns when they are gone
// or ctx ends. Nobody can begin to follow after it.
func (s *Service) Drain(ctx context.Context) {
	s.mu.Lock()
	if !s.ended {
		s.ended = true
		close(s.draining)
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// enter admits a follower; leave is to be called when it goes.
func (s *Service) enter(client string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil, &xrpc.Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "this server is stopping; try again", RetryAfter: time.Second}
	case s.clients[client] >= s.cfg.PerClient:
		refused.WithLabelValues("client").Inc()
		return nil, &xrpc.Error{
			Status: http.StatusTooManyRequests, Name: "RateLimitExceeded", RetryAfter: againAfter,
			Message: "this client follows as often as it may at a time: " + strconv.Itoa(s.cfg.PerClient) + " times",
		}
	case s.all >= s.cfg.Followers:
		refused.WithLabelValues("process").Inc()
		return nil, &xrpc.Error{
			Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: againAfter,
			Message: "as many clients follow as this server can serve at a time; try again",
		}
	}
	s.running.Add(1)
	s.clients[client]++
	s.all++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.clients[client]--; s.clients[client] == 0 {
			delete(s.clients, client)
		}
		s.running.Done()
	}, nil
}

// read asks the store for a part of the log, when its turn comes.
func (s *Service) read(ctx context.Context, after int64) (page store.EventPage, err error) {
	err = s.ask(ctx, func(ctx context.Context) (err error) {
		page, err = s.log.Events(ctx, after)
		return err
	})
	return page, err
}

func (s *Service) ask(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	select {
	case s.reads <- struct{}{}:
		defer func() { <-s.reads }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return question(ctx)
}

// bounds reads where the log ends, and where it begins for a cursor.
func (s *Service) bounds(ctx context.Context, cursor *int64) (store.EventPage, error) {
	if cursor == nil {
		return s.read(ctx, math.MaxInt64)
	}
	return s.read(ctx, *cursor)
}

// values reads records as they are now, in parts that are not too large.
func (s *Service) values(ctx context.Context, keys []record.Key) (map[record.Key]record.Record, error) {
	var loaded map[record.Key]record.Record
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		loaded, err = s.log.LoadAll(ctx, keys)
		return err
	})
	if !errors.Is(err, store.ErrTooMuch) || len(keys) == 1 {
		return loaded, err
	}
	half, err := s.values(ctx, keys[:len(keys)/2])
	if err != nil {
		return nil, err
	}
	rest, err := s.values(ctx, keys[len(keys)/2:])
	maps.Copy(half, rest)
	return half, err
}

// fitting is a record's value if it is that of the event and not too large.
func fitting(e *store.Event, r record.Record) json.RawMessage {
	if r.CID != e.CID || len(r.Value) > valueBytes {
		return nil
	}
	return r.Value
}
