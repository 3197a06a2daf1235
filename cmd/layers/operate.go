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
		Usage: "build projections anew from PostgreSQL, or PostgreSQL's tables from the network",
		Description: "Builds the search indexes and the graph beside the served ones and, once they are complete, moves reads and\n" +
			"writes to them at once; what changes meanwhile is in them. Stopped or killed, it goes on where it was when it is run\n" +
			"again; --abort drops what there is of it. It ends with what `layers verify` would say.\n" +
			"The read tables, the graph in PostgreSQL, and single collections (--collection), are written again in place by the workers, which must run.\n" +
			"With --from network, the tables of PostgreSQL are filled anew beside the served ones: every repository is found,\n" +
			"fetched and verified again, and the stream followed, beside the indexer, which must run and follow the same relay.\n" +
			"Then they take the served ones' place at once. A repository that is whole in the served tables and cannot be fetched\n" +
			"is listed and tried again for as long as it takes, or given up with --force.",
		Flags: slices.Concat(followFlags(), resyncFlags(), backfillFlags(), operatorFlags(
			&cli.StringFlag{Name: "from", Value: "postgres", Usage: "what is taken for right: postgres or network"},
			&cli.BoolFlag{Name: "force", Usage: "with --from network: switch although repositories that are served could not be fetched"},
			&cli.StringSliceFlag{Name: "to", Usage: "tables, search, graph or relations; may be repeated (default: all that are configured)"},
			&cli.StringSliceFlag{Name: "collection", Usage: "NSID of a collection to write again in place; may be repeated"},
			&cli.BoolFlag{Name: "abort", Usage: "drop what an interrupted run has built"},
		)),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return reindex(ctx, command, p) })
		},
	}
}

// reindex builds anew what can be, and has the rest written again in place.
func reindex(ctx context.Context, command *cli.Command, p *parts) error {
	switch from := command.String("from"); from {
	case "postgres":
	case "network":
		return reindexNetwork(ctx, command, p)
	default:
		return problem(command, "from", "%q is neither postgres nor network", from)
	}
	targets, err := chosenTargets(command, p)
	if err != nil {
		return err
	}
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return err
		}
	}
	var anew, inPlace []record.Target
	for _, target := range targets {
		if target == record.Tables || target == record.Relations || target == record.FullText || len(command.StringSlice("collection")) > 0 {
			inPlace = append(inPlace, target)
		} else {
			anew = append(anew, target)
		}
	}
	if command.Bool("abort") {
		return abortRebuilds(ctx, command, p, anew)
	}
	if err := rewrite(ctx, command, p, inPlace); err != nil {
		return err
	}
	if err := rebuildAll(ctx, command, p, anew); err != nil {
		return err
	}
	report, err := reconcile.Run(ctx, p.stores(), reconcile.Options{Targets: targets, Wait: verifyWait, Logger: p.logger})
	if err != nil {
		return err
	}
	return printReport(command, report)
}

// verifyWait is how long the comparison at the end waits for changes on their way.
const verifyWait = 30 * time.Second

// rewrite has the workers write projections again in place.
func rewrite(ctx context.Context, command *cli.Command, p *parts, targets []record.Target) error {
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
