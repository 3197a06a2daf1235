package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/indexer/backfill"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
)

// reindexed is the name under which runs of `layers reindex --from network` exclude
// each other.
const reindexed record.Target = "network"

// listed is how many repositories or records are named, of those that differ.
const listed = 20

// succession fills PostgreSQL's tables anew from the network.
type succession struct {
	*store.Succession
	served *parts
	out    io.Writer
	force  bool
	began  time.Time
}

func reindexNetwork(ctx context.Context, command *cli.Command, p *parts) error {
	if len(command.StringSlice("to"))+len(command.StringSlice("collection")) > 0 {
		return problem(command, "from", "from the network everything is fetched: --to and --collection do not go with it")
	}
	release, err := store.NewRebuilds(p.pool).Lock(ctx, reindexed)
	if err != nil {
		return err
	}
	defer release()
	s := &succession{served: p, out: command.Root().Writer, force: command.Bool("force"), began: time.Now()}
	if s.Succession, err = store.NewSuccession(ctx, p.pool); err != nil {
		return err
	}
	next, switched, err := s.State(ctx)
	if err != nil {
		return err
	}
	switch {
	case command.Bool("abort"):
		return s.abort(ctx, next)
	case switched:
		fmt.Fprintln(s.out, "an earlier run has switched to the new tables; ending what it left")
	default:
		if err := s.fill(ctx); err != nil {
			return err
		}
	}
	if err := s.Drop(ctx); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "the old tables are dropped, after %s\n", time.Since(s.began).Round(time.Millisecond))
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return err
		}
	}
	report, err := reconcile.Run(ctx, p.stores(), reconcile.Options{Targets: p.targets(), Wait: verifyWait, Logger: p.logger})
	if err != nil {
		return err
	}
	return printReport(command, report)
}

func (s *succession) abort(ctx context.Context, next bool) error {
	if err := s.Drop(ctx); err != nil {
		return err
	}
	if next {
		fmt.Fprintln(s.out, "the new tables are dropped; those that are served were not touched")
	} else {
		fmt.Fprintln(s.out, "there are no new tables to drop")
	}
	return nil
}

// fill runs a line on the next tables until they have taken the served ones' place.
func (s *succession) fill(ctx context.Context) error {
	next, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	defer next.pool.Close()
	line := next.indexer(nil) // nothing is projected from them before the switch
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- line.Run(running)
	}()
	err = s.follow(ctx, store.NewResyncs(next.pool), ended)
	stop()
	for range ended { // what the line says once its tables are the served ones is no matter
	}
	if ctx.Err() != nil {
		fmt.Fprintln(s.out, "stopped; run the command again to go on, or with --abort to drop the new tables")
	}
	return err
}

// prepare makes the next tables, or takes up those of an earlier run.
func (s *succession) prepare(ctx context.Context) (*parts, error) {
	address, err := store.NextURL(s.served.cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	resumed, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(s.out, map[bool]string{false: "filling new tables", true: "going on with the new tables of an earlier run"}[resumed])
	if err := store.Migrate(ctx, address, layout.Partitions(s.served.catalog), s.served.logger); err != nil {
		return nil, fmt.Errorf("preparing the new tables: %w", err)
	}
	strangers, err := s.Strangers(ctx)
	if err != nil {
		return nil, err
	}
	if len(strangers) > 0 {
		return nil, fmt.Errorf("the served schema also holds %s, which would be dropped with the old tables: move it to another schema first", strings.Join(strangers, ", "))
	}
	if err := errors.Join(s.Raise(ctx), s.Ask(ctx)); err != nil {
		return nil, err
	}
	next := *s.served
	next.cfg.DatabaseURL = address
	if next.pool, err = store.Open(ctx, store.Config{URL: address, Name: "layers reindex"}); err != nil {
		return nil, err
	}
	return &next, nil
}

// follow shows the progress, and switches once everything is fetched.
func (s *succession) follow(ctx context.Context, resyncs *store.Resyncs, ended <-chan error) error {
	compared, shown := false, time.Time{}
	for {
		p, err := backfill.Measure(ctx, resyncs, min(max(time.Since(s.began), time.Second), rateSpan))
		if err != nil {
			return err
		}
		if p.Unoffered() && !s.force {
			return errUnoffered
		}
		show := time.Since(shown) >= renewEvery
		if show {
			fmt.Fprintln(s.out, progressLine(p))
			shown = time.Now()
		}
		if s.fetched(p) {
			if !compared {
				if err := s.compare(ctx); err != nil {
					return err
				}
				compared = true
			}
			done, err := s.take(ctx, show)
			if done || err != nil {
				return err
			}
		}
		select {
		case err := <-ended:
			return errors.Join(errors.New("the line that fills the new tables has ended"), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(switchEvery):
		}
	}
}

// switchEvery lies between two tries to switch.
const switchEvery = 250 * time.Millisecond

// fetched tells whether all is fetched but what fails.
func (s *succession) fetched(p backfill.Progress) bool {
	searched := len(p.Searches) > 0 || !s.served.cfg.Backfill
	return searched && (p.Settled() || s.force && p.Unoffered() && p.Waiting <= p.Failing)
}

// compare gives what is the same the served versions, and prints what is not.
func (s *succession) compare(ctx context.Context) error {
	var collections []syntax.NSID
	for _, c := range s.served.catalog.Collections() {
		collections = append(collections, c.NSID)
	}
	if err := s.Align(ctx, collections); err != nil {
		return err
	}
	c, err := s.Compare(ctx)
	if err != nil {
		return err
	}
	differences, err := s.Differences(ctx, listed)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "records: %d served, %d new; %d were missing, %d were different, %d are no longer there\n", c.Served, c.Next, c.Added, c.Changed, c.Missing)
	for _, line := range differences {
		fmt.Fprintln(s.out, line)
	}
	fmt.Fprintf(s.out, "repositories: %d served, %d new; %d not as far as the served, %d with another tree at the same revision\n", c.Repos, c.NextRepos, c.BehindRepos, c.DifferingRepos)
	return nil
}

// take switches, unless repositories would be lost by it.
func (s *succession) take(ctx context.Context, show bool) (done bool, err error) {
	lacks, err := s.Lacks(ctx, listed)
	if err != nil {
		return false, err
	}
	if len(lacks) > 0 && show {
		fmt.Fprintf(s.out, "served, but not fetched (--force gives them up):\n")
		for _, lack := range lacks {
			fmt.Fprintf(s.out, "  %s: %s: %s\n", lack.DID, orNone(lack.Host), lack.Cause)
		}
	}
	if len(lacks) > 0 && !s.force {
		return false, nil
	}
	err = s.Switch(ctx)
	if errors.Is(err, store.ErrBehind) {
		if show {
			fmt.Fprintln(s.out, "waiting to switch:", err)
		}
		return false, nil
	}
	if err == nil {
		fmt.Fprintf(s.out, "switched to the new tables after %s\n", time.Since(s.began).Round(time.Millisecond))
	}
	return err == nil, err
}
