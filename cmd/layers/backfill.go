package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/indexer/backfill"
	"github.com/layers-pub/layers-appview/internal/store"
)

// discovery finds repositories that the stream does not tell of. It is nil where that
// is switched off.
func (p *parts) discovery() interface{ Run(context.Context) error } {
	if !p.cfg.Backfill {
		return nil
	}
	cfg := backfill.Config{
		Hosts: httpHosts(p.cfg.Relays), Resyncs: store.NewResyncs(p.pool), UserAgent: userAgent(), Logger: p.logger,
	}
	for _, collection := range p.catalog.Collections() {
		cfg.Collections = append(cfg.Collections, collection.NSID)
	}
	for _, name := range p.cfg.Foreign {
		if strings.HasSuffix(name, "*") {
			cfg.Patterns = append(cfg.Patterns, name)
		} else if !slices.Contains(cfg.Collections, syntax.NSID(name)) {
			cfg.Collections = append(cfg.Collections, syntax.NSID(name))
		}
	}
	return backfill.New(cfg)
}

// errUnoffered is what a search comes to where there is only a stream.
var errUnoffered = errors.New("no relay lists repositories: only those that the stream tells of can be found, or those that --repo names")

// errUnfetched makes `layers backfill` exit 1.
var errUnfetched = errors.New("repositories could not be fetched; the indexer goes on trying")

func backfillCommand() *cli.Command {
	return &cli.Command{
		Name:  "backfill",
		Usage: "have repositories fetched whole: those named, or all that have records of the followed collections",
		Description: "Puts the request into the database, where a running `layers indexer` finds it, and shows the progress until\n" +
			"everything is fetched, or has failed at least once: then exit 1. Repositories that are whole are fetched again.",
		Flags: slices.Concat(followFlags(), operatorFlags(
			&cli.StringSliceFlag{Name: "repo", Usage: "DID or handle of a repository; may be repeated"},
			&cli.StringSliceFlag{Name: "collection", Usage: "NSID of a collection, or a pattern that is followed; may be repeated (default: all, unless --repo is given)"},
			&cli.BoolFlag{Name: "wait", Value: true, Usage: "show the progress until it is done; --wait=false returns at once"},
		)),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return runBackfill(ctx, command, p) })
		},
		Commands: []*cli.Command{{
			Name: "status", Usage: "print how far finding and fetching repositories has come", Flags: operatorFlags(),
			Action: func(ctx context.Context, command *cli.Command) error {
				return withParts(ctx, command, func(p *parts) error { return printBackfill(ctx, command, p) })
			},
		}},
	}
}

// following is a request that is shown until it is done.
type following struct {
	resyncs *store.Resyncs
	out     io.Writer
	repos   []syntax.DID
	failed  map[syntax.DID]int // attempts before the request
	search  bool               // collections are searched
	began   time.Time
}

func runBackfill(ctx context.Context, command *cli.Command, p *parts) error {
	collections, err := askedSearches(command, p)
	if err != nil {
		return err
	}
	repos, err := askedRepos(ctx, command, p)
	if err != nil {
		return err
	}
	f := &following{resyncs: store.NewResyncs(p.pool), out: command.Root().Writer, repos: repos, failed: map[syntax.DID]int{}, began: time.Now()}
	f.search = len(collections) > 0 || len(repos) == 0
	err = p.audited(ctx, command, "backfill", fmt.Sprint(repos, collections), func(ctx context.Context) error { return f.request(ctx, collections) })
	if err != nil {
		return err
	}
	led, err := f.resyncs.HasWriter(ctx)
	if err != nil {
		return err
	}
	if !led {
		fmt.Fprintln(f.out, "no indexer is running; the request waits for one")
	}
	if !command.Bool("wait") {
		return nil
	}
	return f.show(ctx)
}

// askedSearches are the collections that --collection names.
func askedSearches(command *cli.Command, p *parts) ([]syntax.NSID, error) {
	var out []syntax.NSID
	for _, name := range command.StringSlice("collection") {
		_, known := p.catalog.Collection(syntax.NSID(name))
		if !known && !slices.Contains(p.cfg.Foreign, name) {
			return nil, problem(command, "collection", "%q is not a collection that is followed", name)
		}
		out = append(out, syntax.NSID(name))
	}
	return out, nil
}

// askedRepos are the repositories that --repo names.
func askedRepos(ctx context.Context, command *cli.Command, p *parts) ([]syntax.DID, error) {
	var out []syntax.DID
	for _, name := range command.StringSlice("repo") {
		identifier, err := syntax.ParseAtIdentifier(name)
		if err != nil {
			return nil, problem(command, "repo", "%q is no DID and no handle", name)
		}
		did, err := identifier.AsDID()
		if handle, isHandle := identifier.AsHandle(); isHandle == nil {
			did, err = p.directory().ResolveHandle(ctx, handle)
		}
		if err != nil {
			return nil, problem(command, "repo", "%q: %v", name, err)
		}
		out = append(out, did)
	}
	return out, nil
}

// request puts the request into the store.
func (f *following) request(ctx context.Context, collections []syntax.NSID) error {
	before, err := f.resyncs.Waiting(ctx, f.repos)
	if err != nil {
		return err
	}
	wanted := make([]store.Wanted, len(f.repos))
	for i, did := range f.repos {
		wanted[i] = store.Wanted{DID: did, Reason: "asked for by the operator"}
		f.failed[did] = before[did].Failed
	}
	if _, err := f.resyncs.Add(ctx, wanted); err != nil {
		return err
	}
	if !f.search {
		return nil
	}
	return backfill.Request(ctx, f.resyncs, collections...)
}

const (
	renewEvery = time.Second      // of the line on a terminal
	printEvery = 10 * time.Second // of lines elsewhere
	rateSpan   = time.Minute
)

// show prints the progress until the request is done.
func (f *following) show(ctx context.Context) error {
	renewing := isTerminal(f.out)
	printed := time.Time{}
	for {
		p, done, err := f.look(ctx)
		if err != nil {
			return err
		}
		if renewing {
			fmt.Fprintf(f.out, "\r\x1b[K%s", progressLine(p))
		} else if done || time.Since(printed) >= printEvery {
			fmt.Fprintln(f.out, progressLine(p))
			printed = time.Now()
		}
		if done {
			if renewing {
				fmt.Fprintln(f.out)
			}
			return f.verdict(ctx, p)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(renewEvery):
		}
	}
}

// look measures the progress and tells whether the request is done.
func (f *following) look(ctx context.Context) (p backfill.Progress, done bool, err error) {
	span := min(max(time.Since(f.began), time.Second), rateSpan)
	if p, err = backfill.Measure(ctx, f.resyncs, span); err != nil {
		return p, false, err
	}
	if f.search && p.Unoffered() {
		return p, false, errUnoffered
	}
	failed, waiting, err := f.fates(ctx)
	if err != nil || f.search && (len(p.Searches) == 0 || !p.Settled()) {
		return p, false, err
	}
	return p, len(failed) == len(waiting), nil
}

// fates are the named repositories that still wait, and those of them that have
// failed since the request.
func (f *following) fates(ctx context.Context) (failed []store.Attempt, waiting map[syntax.DID]store.Attempt, err error) {
	if waiting, err = f.resyncs.Waiting(ctx, f.repos); err != nil {
		return nil, nil, err
	}
	for _, did := range f.repos {
		if attempt, ok := waiting[did]; ok && attempt.Failed > f.failed[did] {
			failed = append(failed, attempt)
		}
	}
	return failed, waiting, nil
}

// verdict says what could not be fetched.
func (f *following) verdict(ctx context.Context, p backfill.Progress) error {
	failed, _, err := f.fates(ctx)
	if err != nil {
		return err
	}
	for _, attempt := range failed {
		fmt.Fprintf(f.out, "%s: %s: %s\n", attempt.DID, orNone(attempt.Host), attempt.Cause)
	}
	if f.search {
		printHosts(f.out, p)
	}
	if len(failed) > 0 || f.search && p.Failing > 0 {
		return errUnfetched
	}
	fmt.Fprintf(f.out, "done after %s\n", time.Since(f.began).Round(time.Millisecond))
	return nil
}

// progressLine is the progress in one line.
func progressLine(p backfill.Progress) string {
	searched := len(p.Searches) - len(p.Unfinished())
	parts := []string{
		fmt.Sprintf("%d of %d searches done", searched, len(p.Searches)),
		fmt.Sprintf("%d found", p.Found()),
		fmt.Sprintf("%d waiting", p.Waiting),
		fmt.Sprintf("%d being fetched", p.Resyncing),
		fmt.Sprintf("%d failing", p.Failing),
		fmt.Sprintf("%d fetched in %s (%.1f/s)", p.Fetched, p.Span.Round(time.Second), p.Rate()),
	}
	if eta, known := p.ETA(); known && p.Waiting > 0 {
		parts = append(parts, "ready in "+eta.Round(time.Second).String())
	}
	return strings.Join(parts, ", ")
}

func printHosts(out io.Writer, p backfill.Progress) {
	for _, h := range p.Hosts {
		fmt.Fprintf(out, "%d failing at %s: %s\n", h.Repos, orNone(h.Host), h.LastError)
	}
}

func orNone(host string) string {
	if host == "" {
		return "(no host)"
	}
	return host
}

func printBackfill(ctx context.Context, command *cli.Command, parts *parts) error {
	out := command.Root().Writer
	p, err := backfill.Measure(ctx, store.NewResyncs(parts.pool), rateSpan)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "COLLECTION\tFOUND\tSTATE\tMETHOD\tHOST")
	for _, d := range p.Searches {
		state := "searching"
		if !d.FinishedAt.IsZero() {
			state = "searched " + d.FinishedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\n", d.Collection, d.Found, state, d.Method, d.Host)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, progressLine(p))
	printHosts(out, p)
	if !p.NextDue.IsZero() {
		fmt.Fprintf(out, "the next attempt is due at %s\n", p.NextDue.UTC().Format(time.RFC3339))
	}
	return nil
}
