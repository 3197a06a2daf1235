// Package cache gives answers again that were worked out before, and lets requests
// that ask the same at the same time share one answer.
//
// No answer is given that is older than the request: each is labelled with the version
// up to which it knows of everything, and PostgreSQL is asked, for each request, when
// what the answer follows from was changed last. So nothing has to be evicted, and
// nothing depends on what Redis remembers or forgets: it holds answers, and which of
// them still hold is known to PostgreSQL alone. The decision 052 has the reasons.
package cache

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Source says what answers follow from.
type Source struct {
	// Collections are those whose records the answer follows from; nil for any.
	Collections []syntax.NSID
	// Projection is where it is read from; empty for what the truth itself says.
	Projection record.Target
}

// Question is one that may be asked again.
type Question struct {
	Key    string        // the same for the same question, and no other
	Route  string        // for metrics
	For    time.Duration // how long its answer is kept at most
	Source Source
}

// Answer is what was worked out.
type Answer struct {
	Body []byte
	// Partial is set where the answer is not what it would be if all stores did
	// well: it is not kept.
	Partial bool
}

// changes tells what has changed; *store.Changes does.
type changes interface {
	Versions(ctx context.Context) (store.Versions, error)
	Settled(ctx context.Context, target record.Target) (settled func(syntax.NSID) bool, every bool, err error)
}

// Config says what to keep answers in. Without Redis they are only shared.
type Config struct {
	RedisURL string         // redis:// or rediss://
	Roots    *x509.CertPool // whose certificate Redis must have; nil for the system's
	Version  string         // of the program: another one's answers may look different
	Changes  changes
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Cache gives answers again.
type Cache struct {
	changes changes
	kept    *kept // nil without Redis
	flights flights
	settled settledness
	answers *prometheus.CounterVec
}

// New makes a cache; it does not connect. Errors are of the configuration.
func New(cfg Config) (*Cache, error) {
	c := &Cache{
		changes: cfg.Changes, settled: settledness{changes: cfg.Changes, now: time.Now},
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "layers_cache_answers_total", Help: "Answers to questions that may be asked again: kept, shared, or worked out.",
		}, []string{"route", "from"}),
	}
	if err := cfg.Registry.Register(c.answers); err != nil {
		return nil, err
	}
	if cfg.RedisURL == "" {
		return c, nil
	}
	var err error
	c.kept, err = openKept(cfg)
	return c, err
}

// Close ends the connections to Redis.
func (c *Cache) Close() error {
	if c.kept == nil {
		return nil
	}
	return c.kept.redis.Close()
}

// Do answers a question: by what was kept or is being worked out, if that is not older
// than the call, or else by make, whose context ends when nobody waits any more. A
// Redis or PostgreSQL that does not answer only costs the advantage.
func (c *Cache) Do(ctx context.Context, q Question, make func(context.Context) (Answer, error)) ([]byte, error) {
	var found entry
	var now store.Versions
	var group errgroup.Group
	if c.kept != nil {
		group.Go(func() error { found = c.kept.get(ctx, q.Key); return nil })
	}
	now, err := c.changes.Versions(ctx)
	if waited := group.Wait(); err != nil || waited != nil {
		c.count(q, "direct")
		answer, err := make(ctx)
		return answer.Body, err
	}
	if found.body != nil && !now.Changed(found.label, q.Source.Collections) {
		c.count(q, "kept")
		return found.body, nil
	}
	f, joined := c.flights.join(ctx, q.Key, now, func(f *flight) bool { return outdated(now, f, q) },
		func(ctx context.Context) result { return c.workOut(ctx, q, now, make) })
	if joined {
		c.count(q, "shared")
	} else {
		c.count(q, "made")
	}
	answer, err := f.wait(ctx)
	return answer.Body, err
}

// outdated tells whether an answer that is being worked out may be from before the
// request came. One from a projection is as far behind as that is, whoever asks; but
// nobody is shown what was hidden.
func outdated(now store.Versions, f *flight, q Question) bool {
	switch {
	case f.began >= now.Clock:
		return false
	case q.Source.Projection != "":
		return now.Hidden(f.began)
	}
	return now.Changed(f.began, q.Source.Collections)
}

// workOut makes an answer and keeps it, if it can be labelled.
func (c *Cache) workOut(ctx context.Context, q Question, before store.Versions, make func(context.Context) (Answer, error)) result {
	label, labelled := c.label(ctx, q, before)
	answer, err := make(ctx)
	r := result{answer: answer, err: err}
	if err == nil && labelled && !answer.Partial && c.kept != nil {
		r.after = func(ctx context.Context) { c.kept.put(ctx, q, entry{label: label, body: answer.Body}) }
	}
	return r
}

// label is the version up to which an answer that is worked out from now on knows of
// everything.
func (c *Cache) label(ctx context.Context, q Question, before store.Versions) (int64, bool) {
	if c.kept == nil {
		return 0, false
	}
	if q.Source.Projection == "" {
		return before.Clock, true
	}
	label, ok := c.settled.label(ctx, q.Source, before)
	return label, ok && !before.Changed(label, q.Source.Collections)
}

func (c *Cache) count(q Question, from string) { c.answers.WithLabelValues(q.Route, from).Inc() }
