package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"text/tabwriter"
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

func deadLetterCommand() *cli.Command {
	return &cli.Command{
		Name:  "dlq",
		Usage: "look at what could not be indexed, and drop it",
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "list dead letters, newest first",
				Flags: operatorFlags(
					&cli.StringFlag{Name: "stage", Usage: "frame, verify, validate, store or project:TARGET"},
					&cli.StringFlag{Name: "class", Usage: "the kind of failure"},
					&cli.StringFlag{Name: "did", Usage: "of this repository"},
					&cli.StringFlag{Name: "collection", Usage: "of this collection"},
					&cli.IntFlag{Name: "limit", Value: 50, Usage: "how many"},
					&cli.Int64Flag{Name: "before", Usage: "only those with a smaller ID, to go on from a list"},
				),
				Action: func(ctx context.Context, command *cli.Command) error {
					return withParts(ctx, command, func(p *parts) error { return listLetters(ctx, command, p) })
				},
			},
			{
				Name: "show", Usage: "show a dead letter whole", ArgsUsage: "ID", Flags: operatorFlags(),
				Action: func(ctx context.Context, command *cli.Command) error {
					return withParts(ctx, command, func(p *parts) error { return showLetter(ctx, command, p) })
				},
			},
			{
				Name: "drop", Usage: "delete dead letters", ArgsUsage: "ID...", Flags: operatorFlags(),
				Action: func(ctx context.Context, command *cli.Command) error {
					return withParts(ctx, command, func(p *parts) error { return dropLetters(ctx, command, p) })
				},
			},
		},
	}
}

func listLetters(ctx context.Context, command *cli.Command, p *parts) error {
	filter := store.LetterFilter{
		Stage: command.String("stage"), Class: command.String("class"),
		DID: syntax.DID(command.String("did")), Collection: syntax.NSID(command.String("collection")),
	}
	letters, err := store.NewDeadLetters(p.pool).List(ctx, filter, command.Int64("before"), command.Int("limit"))
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(command.Root().Writer, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tWHEN\tSTAGE\tCLASS\tRECORD\tPATH\tREASON")
	for _, l := range letters {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%.100s\n", l.ID, l.CreatedAt.UTC().Format(time.RFC3339), l.Stage, l.Class, nameOf(l), l.Path, l.Reason)
	}
	return table.Flush()
}

// nameOf is the record's AT-URI as far as the letter knows it.
func nameOf(l store.DeadLetter) string {
	if l.DID == "" {
		return fmt.Sprintf("%s#%d", l.Host, l.Seq)
	}
	if l.Collection == "" {
		return "at://" + string(l.DID)
	}
	return record.Key{DID: l.DID, Collection: l.Collection, Rkey: l.Rkey}.String()
}

func showLetter(ctx context.Context, command *cli.Command, p *parts) error {
	ids, err := letterIDs(command)
	if err != nil {
		return err
	}
	for _, id := range ids {
		l, err := store.NewDeadLetters(p.pool).Get(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(command.Root().Writer, "id:        %d\nwhen:      %s\nhost:      %s\nseq:       %d\nrecord:    %s\nrev:       %s\ncid:       %s\n"+
			"stage:     %s\nclass:     %s\npath:      %s\nreason:    %s\nexpected:  %s\nreceived:  %s\nbytes:     %d\n%x\n",
			l.ID, l.CreatedAt.UTC().Format(time.RFC3339), l.Host, l.Seq, nameOf(l), l.Rev, l.CID,
			l.Stage, l.Class, l.Path, l.Reason, l.Expected, l.Received, len(l.Raw), l.Raw)
	}
	return nil
}

func dropLetters(ctx context.Context, command *cli.Command, p *parts) error {
	ids, err := letterIDs(command)
	if err != nil {
		return err
	}
	n, err := store.NewDeadLetters(p.pool).Delete(ctx, ids...)
	if err != nil {
		return err
	}
	fmt.Fprintf(command.Root().Writer, "%d dead letters dropped\n", n)
	return nil
}

func letterIDs(command *cli.Command) ([]int64, error) {
	var ids []int64
	for _, arg := range command.Args().Slice() {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no ID; `layers dlq list` shows them", arg)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("name at least one ID; `layers dlq list` shows them")
	}
	return ids, nil
}
