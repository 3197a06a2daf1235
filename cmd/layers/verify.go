package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/store"
)

// errDiffer makes `layers verify` exit 1.
var errDiffer = errors.New("the stores differ")

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "compare the stores record by record and print what differs; exit 1 if anything does",
		Description: "PostgreSQL is held to be right. --deep also reads every value and checks that it still gives the CID\n" +
			"that its repository states. --repair has what differs written again.",
		Flags: operatorFlags(
			&cli.StringSliceFlag{Name: "to", Usage: "tables, search, graph or relations; may be repeated (default: all that are configured)"},
			&cli.StringSliceFlag{Name: "collection", Usage: "NSID of a collection; may be repeated (default: all)"},
			&cli.DurationFlag{Name: "wait", Value: 30 * time.Second, Usage: "how long to wait for changes that are on their way"},
			&cli.BoolFlag{Name: "deep", Usage: "check the values too"},
			&cli.BoolFlag{Name: "repair", Usage: "have what differs written again"},
		),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return compare(ctx, command, p) })
		},
	}
}

func compare(ctx context.Context, command *cli.Command, p *parts) error {
	targets, err := chosenTargets(command, p)
	if err != nil {
		return err
	}
	collections, err := askedCollections(command, p)
	if err != nil {
		return err
	}
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return err
		}
	}
	compare := func(ctx context.Context) error {
		report, err := reconcile.Run(ctx, p.stores(), reconcile.Options{
			Targets: targets, Collections: collections, Wait: command.Duration("wait"),
			Deep: command.Bool("deep"), Repair: command.Bool("repair"), Logger: p.logger,
		})
		if err != nil {
			return err
		}
		return printReport(command, report)
	}
	if command.Bool("repair") {
		return p.audited(ctx, command, "verify.repair", fmt.Sprint(targets, collections), compare)
	}
	return compare(ctx)
}

// compare keeps the metrics of how the projections differ.
func (p *parts) compare(ctx context.Context, leading func() bool) error {
	if p.cfg.Verify == 0 {
		return nil
	}
	return reconcile.Monitor(ctx, p.stores(), p.cfg.Verify, leading, reconcile.Options{Logger: p.logger})
}

func (p *parts) stores() reconcile.Stores {
	return reconcile.Stores{
		Catalog: p.catalog, Records: store.NewReader(p.pool), Outbox: store.NewOutbox(p.pool), Tables: store.NewTables(p.pool),
		Search: p.search, Graph: p.graph, Relations: p.relations, FullText: p.documents(),
	}
}

func printReport(command *cli.Command, report reconcile.Report) error {
	out := command.Root().Writer
	for _, d := range report.Differences {
		fmt.Fprintln(out, d)
	}
	for target, n := range report.Compared {
		fmt.Fprintf(out, "%s: %d records compared\n", target, n)
	}
	if report.Examined > 0 {
		fmt.Fprintf(out, "%d values examined\n", report.Examined)
	}
	if report.Enqueued > 0 {
		fmt.Fprintf(out, "%d enqueued for repair\n", report.Enqueued)
	}
	total := int64(len(report.Differences)) + report.Unlisted
	fmt.Fprintf(out, "%d differences, %d of them not on their way\n", total, report.Real())
	if !report.Clean() {
		return errDiffer
	}
	return nil
}

// askedCollections are those that --collection names, none for all.
func askedCollections(command *cli.Command, p *parts) ([]syntax.NSID, error) {
	var out []syntax.NSID
	for _, name := range command.StringSlice("collection") {
		if _, ok := p.catalog.Collection(syntax.NSID(name)); !ok {
			return nil, problem(command, "collection", "%q is not a collection that is indexed", name)
		}
		out = append(out, syntax.NSID(name))
	}
	slices.Sort(out)
	return out, nil
}
