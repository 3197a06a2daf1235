package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

func letterFlags(more ...cli.Flag) []cli.Flag {
	return operatorFlags(append([]cli.Flag{
		&cli.StringFlag{Name: "stage", Usage: "frame, verify, validate, store or project:TARGET"},
		&cli.StringFlag{Name: "class", Usage: "the kind of failure"},
		&cli.StringFlag{Name: "did", Usage: "of this repository"},
		&cli.StringFlag{Name: "collection", Usage: "of this collection"},
	}, more...)...)
}

func deadLetterCommand() *cli.Command {
	all := &cli.BoolFlag{Name: "all", Usage: "every dead letter there is"}
	sub := func(name, usage, args string, flags []cli.Flag, do func(context.Context, *cli.Command, *parts) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, ArgsUsage: args, Flags: flags, Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return do(ctx, command, p) })
		}}
	}
	return &cli.Command{
		Name:  "dlq",
		Usage: "look at what could not be indexed, have it tried again, or drop it",
		Commands: []*cli.Command{
			sub("list", "list dead letters, newest first", "", letterFlags(
				&cli.IntFlag{Name: "limit", Value: 50, Usage: "how many"},
				&cli.Int64Flag{Name: "before", Usage: "only those with a smaller ID, to go on from a list"}), listLetters),
			sub("show", "show a dead letter whole", "ID...", operatorFlags(), showLetter),
			sub("replay", "have the running indexer put dead letters through again, as after a lexicon was changed", "[ID...]", letterFlags(all,
				&cli.DurationFlag{Name: "wait", Value: time.Minute, Usage: "how long to wait for what becomes of them; 0 to only ask"}), replayLetters),
			sub("drop", "delete dead letters", "[ID...]", letterFlags(all,
				&cli.BoolFlag{Name: "yes", Usage: "also if it is more than one"}), dropLetters),
		},
	}
}

// letterFilter reads which letters are meant.
func letterFilter(command *cli.Command) (f store.LetterFilter, err error) {
	f = store.LetterFilter{
		Stage: command.String("stage"), Class: command.String("class"),
		DID: syntax.DID(command.String("did")), Collection: syntax.NSID(command.String("collection")),
	}
	for _, arg := range command.Args().Slice() {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return f, fmt.Errorf("%q is no ID; `layers dlq list` shows them", arg)
		}
		f.IDs = append(f.IDs, id)
	}
	return f, nil
}

// chosen says which letters are meant, for the log of what operators did.
func chosen(f store.LetterFilter) string {
	if len(f.IDs) > 0 {
		return fmt.Sprint(f.IDs)
	}
	return fmt.Sprintf("stage=%s class=%s did=%s collection=%s", f.Stage, f.Class, f.DID, f.Collection)
}

// chosenLetters insists that something is said of which letters are meant.
func chosenLetters(command *cli.Command) (store.LetterFilter, error) {
	f, err := letterFilter(command)
	if err != nil {
		return f, err
	}
	none := f.IDs == nil && f.Stage == "" && f.Class == "" && f.DID == "" && f.Collection == ""
	if none != command.Bool("all") {
		return f, errors.New("name IDs (`layers dlq list` shows them), or choose by --stage, --class, --did or --collection, or say --all")
	}
	return f, nil
}

func listLetters(ctx context.Context, command *cli.Command, p *parts) error {
	filter, err := letterFilter(command)
	if err != nil {
		return err
	}
	letters, err := store.NewDeadLetters(p.pool).List(ctx, filter, command.Int64("before"), command.Int("limit"))
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(command.Root().Writer, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tWHEN\tSTAGE\tCLASS\tRECORD\tPATH\tREPLAYS\tREASON")
	for _, l := range letters {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.100s\n", l.ID, l.CreatedAt.UTC().Format(time.RFC3339), l.Stage, l.Class, nameOf(l), l.Path, replaysOf(l), l.Reason)
	}
	return table.Flush()
}

// replaysOf says how often a letter was put through again, and whether it is now.
func replaysOf(l store.DeadLetter) string {
	if l.Requested {
		return fmt.Sprintf("%d, asked for", l.Attempts)
	}
	return strconv.Itoa(l.Attempts)
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
	filter, err := letterFilter(command)
	if err != nil {
		return err
	}
	if filter.IDs == nil {
		return errors.New("name at least one ID; `layers dlq list` shows them")
	}
	for _, id := range filter.IDs {
		l, err := store.NewDeadLetters(p.pool).Get(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(command.Root().Writer, "id:        %d\nwhen:      %s\nhost:      %s\nseq:       %d\nrecord:    %s\nrev:       %s\ncid:       %s\n"+
			"stage:     %s\nclass:     %s\npath:      %s\nreason:    %s\nexpected:  %s\nreceived:  %s\nreplays:   %s\noutcome:   %s\nbytes:     %d\n%x\n",
			l.ID, l.CreatedAt.UTC().Format(time.RFC3339), l.Host, l.Seq, nameOf(l), l.Rev, l.CID,
			l.Stage, l.Class, l.Path, l.Reason, l.Expected, l.Received, replaysOf(l), l.Outcome, len(l.Raw), l.Raw)
	}
	return nil
}

func dropLetters(ctx context.Context, command *cli.Command, p *parts) error {
	filter, err := chosenLetters(command)
	if err != nil {
		return err
	}
	letters := store.NewDeadLetters(p.pool)
	if n, err := letters.Count(ctx, filter); err != nil || n > 1 && !command.Bool("yes") {
		return errors.Join(err, fmt.Errorf("these are %d dead letters: add --yes to drop them", n))
	}
	var n int64
	err = p.within(ctx, command, "dlq.drop", chosen(filter), func(tx pgx.Tx) (_ string, err error) {
		n, err = store.NewDeadLetters(tx).Delete(ctx, filter)
		return fmt.Sprintf("%d dropped", n), err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(command.Root().Writer, "%d dead letters dropped\n", n)
	return nil
}

// replayLetters asks the indexer, and shows what becomes of each letter.
func replayLetters(ctx context.Context, command *cli.Command, p *parts) error {
	filter, err := chosenLetters(command)
	if err != nil {
		return err
	}
	out := command.Root().Writer
	letters := store.NewDeadLetters(p.pool)
	var ids []int64
	err = p.within(ctx, command, "dlq.replay", chosen(filter), func(tx pgx.Tx) (_ string, err error) {
		ids, err = store.NewDeadLetters(tx).Request(ctx, filter)
		return fmt.Sprintf("%d asked for", len(ids)), err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d dead letters are to be put through again\n", len(ids))
	if wait := command.Duration("wait"); wait > 0 && len(ids) > 0 {
		return awaitReplays(ctx, out, letters, ids, wait)
	}
	return nil
}

// replayLook is how many letters are looked at together, and replayPoll how often.
const (
	replayLook = 16
	replayPoll = 200 * time.Millisecond
)

func awaitReplays(ctx context.Context, out io.Writer, letters *store.DeadLetters, ids []int64, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	open := map[int64]string{}
	for _, id := range ids {
		open[id] = ""
	}
	gone, failed := 0, 0
	for len(open) > 0 && time.Now().Before(deadline) {
		for part := range slices.Chunk(slices.Sorted(maps.Keys(open)), replayLook) {
			found, err := letters.List(ctx, store.LetterFilter{IDs: part}, 0, replayLook)
			if err != nil {
				return err
			}
			there := map[int64]store.DeadLetter{}
			for _, l := range found {
				there[l.ID] = l
			}
			for _, id := range part {
				l, ok := there[id]
				switch {
				case !ok:
					gone++
					fmt.Fprintf(out, "%d\treplayed, or overtaken by what is newer\n", id)
					delete(open, id)
				case !l.Requested:
					failed++
					fmt.Fprintf(out, "%d\t%s: %s: %s\n", id, l.Outcome, l.Path, l.Reason)
					delete(open, id)
				case l.Outcome != open[id]:
					open[id] = l.Outcome
					fmt.Fprintf(out, "%d\t%s\n", id, l.Outcome)
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(replayPoll):
		}
	}
	fmt.Fprintf(out, "%d settled, %d failed again, %d still waiting\n", gone, failed, len(open))
	if len(open) > 0 {
		fmt.Fprintln(out, "The running indexer goes on with those that wait; `layers dlq list` shows how they fare.")
	}
	return nil
}
