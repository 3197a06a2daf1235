// Package reconcile compares what the stores hold: every projection with
// PostgreSQL, record by record and in bounded memory, and PostgreSQL with itself.
// It can have what differs projected again.
//
// A projection agrees with PostgreSQL where it has exactly the records that are
// there, each in the record's version or a newer one: a record that was projected
// again for another reason has the version of that. A version that PostgreSQL has not
// given out, as after it was restored, says nothing of what the projection holds.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
	"github.com/layers-pub/layers-appview/internal/store/relations"
)

// Stores are what is compared. Search, Graph and FullText are nil where that target is
// not configured; Search must have been ensured with the mappings in use.
type Stores struct {
	Catalog   *catalog.Catalog
	Records   *store.Reader
	Outbox    *store.Outbox
	Tables    *store.Tables
	Search    *search.Client
	Graph     *graph.Client
	Relations *relations.Store    // nil where it is not kept
	FullText  *fulltext.Documents // likewise
}

// Options say how far to go. The zero value compares all there is, as it is now.
type Options struct {
	Targets     []record.Target // all that are configured if empty
	Collections []syntax.NSID   // all of the catalog if empty
	// Wait is how long to wait for what is enqueued before comparing; what is
	// still under way then is told apart in the report.
	Wait time.Duration
	// Deep also reads every value: whether it gives the record's CID, whether its
	// references are in the table of references, whether a layer's annotations
	// are those in the table.
	Deep bool
	// Repair enqueues what differs. It does not wait for the result.
	Repair bool
	// Held bounds the memory: records of PostgreSQL that are held at a time, at
	// some 50 bytes each. 1,000,000 if zero.
	Held   int
	Logger *slog.Logger
}

// Run compares and returns what it found. The error is that of a store that does
// not answer; differences are no error.
func Run(ctx context.Context, stores Stores, opts Options) (Report, error) {
	r, err := newRun(stores, opts)
	if err != nil {
		return Report{}, err
	}
	for _, target := range r.targets {
		if err := r.caughtUp(ctx, target); err != nil {
			return r.report, err
		}
		for _, c := range r.comparisons(target) {
			if err := r.compare(ctx, c); err != nil {
				return r.report, fmt.Errorf("comparing %s with PostgreSQL: %w", target, err)
			}
		}
	}
	if opts.Deep {
		if err := r.examine(ctx); err != nil {
			return r.report, fmt.Errorf("examining PostgreSQL: %w", err)
		}
	}
	return r.report, nil
}

// run is one comparison of all.
type run struct {
	stores      Stores
	opts        Options
	targets     []record.Target
	collections []*catalog.Collection
	report      Report
	history     store.History
}

func newRun(stores Stores, opts Options) (*run, error) {
	opts.Held = cmp.Or(opts.Held, 1_000_000)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	r := &run{stores: stores, opts: opts, targets: stores.Targets(), collections: stores.Catalog.Collections()}
	r.report.Compared = map[record.Target]int64{}
	if len(opts.Targets) > 0 {
		for _, target := range opts.Targets {
			if !slices.Contains(r.targets, target) {
				return nil, fmt.Errorf("target %q is not configured", target)
			}
		}
		r.targets = opts.Targets
	}
	if len(opts.Collections) > 0 {
		r.collections = nil
		for _, nsid := range opts.Collections {
			c, ok := stores.Catalog.Collection(nsid)
			if !ok || c.Foreign {
				return nil, fmt.Errorf("collection %q has no lexicon", nsid)
			}
			r.collections = append(r.collections, c)
		}
	}
	return r, nil
}

// Targets are the projections that there are stores of.
func (s Stores) Targets() []record.Target {
	targets := []record.Target{record.Tables}
	if s.Search != nil {
		targets = append(targets, record.Search)
	}
	if s.FullText != nil {
		targets = append(targets, record.FullText)
	}
	if s.Graph != nil {
		targets = append(targets, record.Graph)
	}
	if s.Relations != nil {
		targets = append(targets, record.Relations)
	}
	return targets
}

// following are the collections that a target follows.
func (r *run) following(target record.Target) []*catalog.Collection {
	if target == record.FullText {
		target = record.Search // the same documents elsewhere
	}
	return slices.DeleteFunc(slices.Clone(r.collections), func(c *catalog.Collection) bool {
		targets := project.Targets(c)
		if target == record.Relations { // the graph, elsewhere
			target = record.Graph
		}
		return !slices.Contains(targets, target)
	})
}

const poll = 100 * time.Millisecond

// caughtUp waits, up to Options.Wait, until the target has carried out all that is
// enqueued now.
func (r *run) caughtUp(ctx context.Context, target record.Target) error {
	if r.opts.Wait == 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, r.opts.Wait)
	defer cancel()
	err := CaughtUp(waiting, r.stores.Outbox, target)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		r.opts.Logger.WarnContext(ctx, "the projection has not caught up within the time given", "target", string(target))
		return nil
	}
	return err
}

// CaughtUp waits until a target has carried out all that is enqueued at present. What
// comes in meanwhile is not waited for.
func CaughtUp(ctx context.Context, outbox *store.Outbox, target record.Target) error {
	began := time.Now()
	for {
		depth, err := outbox.Depth(ctx, target)
		if err != nil {
			return err
		}
		switch {
		case depth.Empty():
			return nil
		case depth.Sweeps > 0:
			began = time.Now() // a sweep's rows are as old as their claim
		case depth.Oldest < time.Since(began):
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s, which is %d rows behind: %w", target, depth.Rows, ctx.Err())
		case <-time.After(poll):
		}
	}
}
