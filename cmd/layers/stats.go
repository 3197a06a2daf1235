package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

func statsCommand() *cli.Command {
	sub := func(name, usage string, do func(context.Context, *cli.Command, *parts) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Flags: operatorFlags(), Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return do(ctx, command, p) })
		}}
	}
	return &cli.Command{
		Name:  "stats",
		Usage: "compute the statistics anew, or see how old they are",
		Description: "The indexer computes them by itself, as often as --statistics-interval says. Readers go on with the\n" +
			"figures before until the new ones are complete.",
		Commands: []*cli.Command{
			sub("refresh", "compute the statistics now", refreshStats),
			sub("status", "say of which moment the statistics are, and how the last attempt went", showStats),
		},
	}
}

// refreshStats waits for the refresh that may be under way, and does another.
func refreshStats(ctx context.Context, command *cli.Command, p *parts) error {
	return p.audited(ctx, command, "stats.refresh", "", func(ctx context.Context) error {
		took, err := statistics.NewRefresher(p.pool, store.NewChanges(p.pool), 0, p.logger).Refresh(ctx)
		if err == nil {
			fmt.Fprintf(command.Root().Writer, "computed in %s\n", took.Round(time.Millisecond))
		}
		return err
	})
}

func showStats(ctx context.Context, command *cli.Command, p *parts) error {
	state, err := statistics.NewReader(p.pool).State(ctx)
	if err != nil {
		return err
	}
	out := command.Root().Writer
	if state.RefreshedAt == nil {
		fmt.Fprintln(out, "not computed yet")
	} else {
		fmt.Fprintf(out, "of %s, computed in %s\n", state.RefreshedAt.UTC().Format(time.RFC3339), state.Took.Round(time.Millisecond))
	}
	if state.FailedAt != nil {
		fmt.Fprintf(out, "failed at %s: %s\n", state.FailedAt.UTC().Format(time.RFC3339), state.Error)
	}
	return nil
}

// count keeps the statistics fresh.
func (p *parts) count(ctx context.Context) error {
	if p.cfg.Statistics == 0 {
		return nil
	}
	refresher := statistics.NewRefresher(p.pool, store.NewChanges(p.pool), p.cfg.Statistics, p.logger)
	for _, c := range p.catalog.Collections() {
		if !c.Foreign {
			refresher.Collections = append(refresher.Collections, c.NSID)
		}
	}
	return refresher.Run(ctx)
}
