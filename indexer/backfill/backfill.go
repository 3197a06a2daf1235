// Package backfill finds the repositories that the stream does not tell of: those
// that were written before we listened, or while we did not. For each followed
// collection it asks the relay which repositories have records of it, page by
// page, and puts them on the list of repositories to be fetched; package resync
// fetches them.
//
// Read on in search.go (how a collection is searched) and page.go (how a host is
// asked).
package backfill

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Config says what is looked for and where. What is zero takes the default.
type Config struct {
	Hosts       []string      // http:// or https:// URLs of the relays, the preferred one first
	Collections []syntax.NSID // that are followed
	Patterns    []string      // that are followed too, as app.bsky.*: hosts list no patterns
	Resyncs     *store.Resyncs
	Client      *http.Client // for the hosts, which the operator names; one of its own by default
	UserAgent   string
	Logger      *slog.Logger

	PageSize   int           // repositories asked for at once, 1 to 1,000; 1,000 by default
	Pause      time.Duration // between two pages; 100 ms by default
	Look       time.Duration // between two looks for searches that were started; 3 s by default
	Tries      int           // of a page at one host, before the next host is asked; 5 by default
	MinBackoff time.Duration // first wait after a failure; 1 s by default
	MaxBackoff time.Duration // longest wait; 5 min by default
}

func (c *Config) setDefaults() {
	c.PageSize = cmp.Or(c.PageSize, 1000)
	c.Pause = cmp.Or(c.Pause, 100*time.Millisecond)
	c.Look = cmp.Or(c.Look, 3*time.Second)
	c.Tries = cmp.Or(c.Tries, 5)
	c.MinBackoff = cmp.Or(c.MinBackoff, time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 5*time.Minute)
	if c.Client == nil {
		c.Client = &http.Client{Timeout: time.Minute}
	}
	for i, host := range c.Hosts {
		c.Hosts[i] = strings.TrimSuffix(host, "/")
	}
}

// Backfill searches for repositories. One may run on a database at a time: it
// belongs to whoever is the writer.
type Backfill struct {
	cfg    Config
	lacked map[string]time.Time // when a host last said that it does not offer a method
}

// New makes a Backfill; Run starts it.
func New(cfg Config) *Backfill {
	cfg.setDefaults()
	return &Backfill{cfg: cfg, lacked: map[string]time.Time{}}
}

// Run searches for each collection whose search is not finished, and then waits for
// searches to be started anew, until ctx ends. What fails is repeated for ever. A
// kill at any point costs the page that was under way.
func (b *Backfill) Run(ctx context.Context) error {
	for _, pattern := range b.cfg.Patterns {
		b.cfg.Logger.WarnContext(ctx, "no host lists the repositories of a pattern: the stream alone tells of them, unless"+
			" `layers backfill --collection` names it, which asks every repository of the network", "collection", pattern)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.search(ctx) })
	group.Go(func() error { return b.observe(ctx) })
	return group.Wait()
}

func (b *Backfill) search(ctx context.Context) error {
	for failures := 0; ; {
		err := b.round(ctx)
		wait := b.cfg.Look
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failures = 0
		default:
			wait = b.backoff(failures)
			failures++
			b.cfg.Logger.WarnContext(ctx, "searching for repositories failed, will go on", "wait", wait, "error", err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// round takes all searches as far as they go.
func (b *Backfill) round(ctx context.Context) error {
	all, err := b.searches(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range all {
		if d.FinishedAt.IsZero() && d.Method != methodAll && d.Collection != everything {
			failed = append(failed, b.searchCollection(ctx, d))
		}
	}
	return errors.Join(append(failed, b.searchEverything(ctx))...)
}

// backoff doubles from MinBackoff to MaxBackoff, with full jitter above the minimum.
func (b *Backfill) backoff(attempt int) time.Duration {
	ceiling := min(b.cfg.MinBackoff<<min(attempt, 20), b.cfg.MaxBackoff)
	return b.cfg.MinBackoff + rand.N(max(ceiling-b.cfg.MinBackoff, 1))
}

func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
