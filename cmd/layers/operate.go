package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// operatorFlags are those of commands that open the stores once.
func operatorFlags(more ...cli.Flag) []cli.Flag {
	return slices.Concat(more, storeFlags(), networkFlags(), runFlags(), []cli.Flag{asFlag()})
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
			return withParts(ctx, command, func(p *parts) error {
				if err := p.migrate(ctx); err != nil {
					return err
				}
				done := noted(command, "migrate", version)
				done.Outcome = store.Done
				return p.adminLog().Note(ctx, done)
			})
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
		return p.audited(ctx, command, reindexName(command), "network", func(ctx context.Context) error { return reindexNetwork(ctx, command, p) })
	default:
		return problem(command, "from", "%q is neither postgres nor network", from)
	}
	targets, err := chosenTargets(command, p)
	if err != nil {
		return err
	}
	asked, err := askedCollections(command, p)
	if err != nil {
		return err
	}
	out := command.Root().Writer
	return p.audited(ctx, command, reindexName(command), fmt.Sprint(targets, asked), func(ctx context.Context) error {
		if command.Bool("abort") {
			anew, _ := buildable(targets, asked)
			return p.abortRebuilds(ctx, out, anew)
		}
		collectLess()
		shown := &progress{out: out, said: map[record.Target]said{}}
		report, err := p.reindex(ctx, targets, asked, out, shown.report)
		if err != nil {
			return err
		}
		return printReport(command, report)
	})
}

func reindexName(command *cli.Command) string {
	if command.Bool("abort") {
		return "reindex.abort"
	}
	return "reindex"
}

// reindex builds projections of all collections that are asked for, none for all of
// them, and compares them with PostgreSQL at the end.
func (p *parts) reindex(ctx context.Context, targets []record.Target, asked []syntax.NSID, out io.Writer, report func(rebuild.Progress)) (reconcile.Report, error) {
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return reconcile.Report{}, err
		}
	}
	anew, inPlace := buildable(targets, asked)
	if err := p.rewrite(ctx, out, inPlace, asked); err != nil {
		return reconcile.Report{}, err
	}
	if err := p.rebuildAll(ctx, anew, asked, report); err != nil {
		return reconcile.Report{}, err
	}
	return reconcile.Run(ctx, p.stores(), reconcile.Options{Targets: targets, Wait: verifyWait, Logger: p.logger})
}

// buildable tells what is built beside the served one from what is written again in place.
func buildable(targets []record.Target, asked []syntax.NSID) (anew, inPlace []record.Target) {
	for _, target := range targets {
		if target == record.Tables || target == record.Relations || target == record.FullText || len(asked) > 0 {
			inPlace = append(inPlace, target)
		} else {
			anew = append(anew, target)
		}
	}
	return anew, inPlace
}

// verifyWait is how long the comparison at the end waits for changes on their way.
const verifyWait = 30 * time.Second

// rewrite has the workers write projections again in place.
func (p *parts) rewrite(ctx context.Context, out io.Writer, targets []record.Target, asked []syntax.NSID) error {
	for _, target := range targets {
		collections := p.following(target, asked)
		began := time.Now()
		fmt.Fprintf(out, "%s: writing %d collections again\n", target, len(collections))
		if err := reconcile.Reindex(ctx, p.stores(), target, collections); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: written after %s\n", target, time.Since(began).Round(time.Millisecond))
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

// following are the collections that follow the target among the ones asked for.
func (p *parts) following(target record.Target, asked []syntax.NSID) []syntax.NSID {
	var out []syntax.NSID
	for collection, targets := range p.routes() {
		if slices.Contains(targets, target) && (len(asked) == 0 || slices.Contains(asked, collection)) {
			out = append(out, collection)
		}
	}
	slices.Sort(out)
	return out
}
