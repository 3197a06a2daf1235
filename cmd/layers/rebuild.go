package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

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
func rebuildAll(ctx context.Context, command *cli.Command, p *parts, targets []record.Target) error {
	if p.graph != nil {
		if err := p.graph.Ensure(ctx); err != nil {
			return fmt.Errorf("preparing Neo4j: %w", err)
		}
	}
	out := &progress{out: command.Root().Writer, said: map[record.Target]said{}}
	group, ctx := errgroup.WithContext(ctx)
	for _, target := range targets {
		group.Go(func() error { return rebuildOne(ctx, command, p, target, out) })
	}
	return group.Wait()
}

func rebuildOne(ctx context.Context, command *cli.Command, p *parts, target record.Target, out *progress) error {
	collections, err := chosenCollections(command, p, target)
	if err != nil {
		return err
	}
	rebuilds := store.NewRebuilds(p.pool)
	release, err := rebuilds.Lock(ctx, target)
	if err != nil {
		return err
	}
	defer release()
	done, err := rebuild.Run(ctx, rebuild.Config{
		Catalog: p.catalog, Records: store.NewReader(p.pool), Outbox: store.NewOutbox(p.pool), Rebuilds: rebuilds,
		Letters: store.NewDeadLetters(p.pool), Collections: collections, Next: p.next(target), Logger: p.logger, Report: out.report,
	})
	if err != nil {
		return fmt.Errorf("%w\n%d of %d records are done; run the command again to go on, or with --abort to drop them", err, done.Done, done.Total)
	}
	return nil
}

// abortRebuilds drops rebuilds that are under way.
func abortRebuilds(ctx context.Context, command *cli.Command, p *parts, targets []record.Target) error {
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
		fmt.Fprintf(command.Root().Writer, "%s: nothing is left of the rebuild\n", target)
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
