package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// operatorFlags are those of commands that open the stores once.
func operatorFlags(more ...cli.Flag) []cli.Flag {
	return slices.Concat(more, storeFlags(), networkFlags(), runFlags())
}

// withParts runs what an operator's command does with the stores open.
func withParts(ctx context.Context, command *cli.Command, do func(*parts) error) error {
	cfg, logger, err := begin(command, "database-url")
	if err != nil {
		return err
	}
	p, err := openParts(ctx, cfg, logger, store.Config{URL: cfg.DatabaseURL, Name: "layers " + command.Name})
	if err != nil {
		return err
	}
	defer p.close(context.WithoutCancel(ctx))
	return do(p)
}

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name:        "migrate",
		Usage:       "bring the stores to this program's schema; may be repeated",
		Description: "PostgreSQL's tables, the partition and indexes of each collection, search indexes, and the graph's constraints.",
		Flags:       operatorFlags(),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return p.migrate(ctx) })
		},
	}
}

func reindexCommand() *cli.Command {
	return &cli.Command{
		Name:  "reindex",
		Usage: "have projections written again from PostgreSQL",
		Description: "Puts every record of the chosen collections into the outbox, behind what is there already, and waits until\n" +
			"the workers (`layers indexer` or `layers worker`, which must run) have written them. Reads go on meanwhile.",
		Flags: operatorFlags(
			&cli.StringSliceFlag{Name: "to", Usage: "tables, search or graph; may be repeated (default: all that are configured)"},
			&cli.StringSliceFlag{Name: "collection", Usage: "NSID of a collection; may be repeated (default: all)"},
		),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return reindex(ctx, command, p) })
		},
	}
}

func reindex(ctx context.Context, command *cli.Command, p *parts) error {
	targets, err := chosenTargets(command, p)
	if err != nil {
		return err
	}
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return err
		}
	}
	for _, target := range targets {
		collections, err := chosenCollections(command, p, target)
		if err != nil {
			return err
		}
		began := time.Now()
		fmt.Fprintf(command.Root().Writer, "%s: writing %d collections again\n", target, len(collections))
		if err := reconcile.Reindex(ctx, p.stores(), target, collections); err != nil {
			return err
		}
		fmt.Fprintf(command.Root().Writer, "%s: written after %s\n", target, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func chosenTargets(command *cli.Command, p *parts) ([]record.Target, error) {
	names := command.StringSlice("to")
	if len(names) == 0 {
		return p.targets(), nil
	}
	var out []record.Target
	for _, name := range names {
		target := record.Target(name)
		if !slices.Contains(p.targets(), target) {
			return nil, problem(command, "to", "%q is not one of the configured projections %v", name, p.targets())
		}
		out = append(out, target)
	}
	return out, nil
}

// chosenCollections are those that follow the target among the ones asked for.
func chosenCollections(command *cli.Command, p *parts, target record.Target) ([]syntax.NSID, error) {
	asked, err := askedCollections(command, p)
	if err != nil {
		return nil, err
	}
	var out []syntax.NSID
	for collection, targets := range p.routes() {
		if slices.Contains(targets, target) && (len(asked) == 0 || slices.Contains(asked, collection)) {
			out = append(out, collection)
		}
	}
	slices.Sort(out)
	return out, nil
}
