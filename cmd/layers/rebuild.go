package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// next is the projection to build of a target.
func (p *parts) next(target record.Target) rebuild.Projection {
	if target == record.Search {
		return rebuild.NewSearch(p.catalog, p.search)
	}
	return rebuild.NewGraph(p.catalog, p.graph)
}

// rebuildAll builds projections anew, all at the same time.
func (p *parts) rebuildAll(ctx context.Context, targets []record.Target, asked []syntax.NSID, report func(rebuild.Progress)) error {
	if p.graph != nil {
		if err := p.graph.Ensure(ctx); err != nil {
			return fmt.Errorf("preparing Neo4j: %w", err)
		}
	}
	rebuilds := store.NewRebuilds(p.pool)
	var cfgs []rebuild.Config
	for _, target := range targets {
		release, err := rebuilds.Lock(ctx, target)
		if err != nil {
			return err
		}
		defer release()
		cfgs = append(cfgs, rebuild.Config{
			Catalog: p.catalog, Records: store.NewReader(p.pool), Outbox: store.NewOutbox(p.pool), Rebuilds: rebuilds,
			Letters: store.NewDeadLetters(p.pool), Collections: p.following(target, asked), Next: p.next(target), Logger: p.logger, Report: report,
		})
	}
	done, err := rebuild.RunAll(ctx, cfgs...)
	for _, d := range done {
		if err != nil {
			err = fmt.Errorf("%w\n%s: %d of %d records are done, step %s", err, d.Target, d.Done, d.Total, d.Step)
		}
	}
	if err != nil {
		return fmt.Errorf("%w\nrun the command again to go on, or with --abort to drop what there is", err)
	}
	return nil
}

// abortRebuilds drops rebuilds that are under way.
func (p *parts) abortRebuilds(ctx context.Context, out io.Writer, targets []record.Target) error {
	rebuilds := store.NewRebuilds(p.pool)
	for _, target := range targets {
		at, err := rebuilds.Get(ctx, target)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if at.Promoted {
			return fmt.Errorf("the new %s is in use already: run the command without --abort to end what is left to do", target)
		}
		release, err := rebuilds.Lock(ctx, target)
		if err != nil {
			return err
		}
		err = rebuild.Abort(ctx, rebuilds, p.next(target))
		release()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: nothing is left of the rebuild\n", target)
	}
	return nil
}

// progress prints how far rebuilds have come: each step, and each second between.
type progress struct {
	mu   sync.Mutex
	out  io.Writer
	said map[record.Target]said
}

type said struct {
	step string
	at   time.Time
}

const sayEvery = time.Second

func (s *progress) report(p rebuild.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.said[p.Target]
	if last.step == p.Step && time.Since(last.at) < sayEvery {
		return
	}
	s.said[p.Target] = said{p.Step, time.Now()}
	fmt.Fprintf(s.out, "%s: %s: %d of %d records, %.0f/s, %s left, %d changes since\n", p.Target, p.Step, p.Done, p.Total, p.Rate(), p.ETA(), p.Followed)
}
