// Package rebuild makes a projection anew from PostgreSQL, beside the one that is
// served, and puts it in that one's place all at once.
//
//	begin    from now on every change has a twin in the outbox (store.Twin)
//	fill     every record, in the order of collections, DIDs and record keys
//	follow   the twins that have gathered, until there are hardly any
//	promote  reads and the workers' writes move to the new one
//	end      no more twins; the last ones are carried out; the old one goes
//
// Nothing is lost at any point. What commits before the beginning is read by the
// filling; what commits after it has a twin until the old projection can no longer be
// written by anybody. Each step is noted, so that after a kill the next run goes on
// from there.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Config is what a rebuild needs.
type Config struct {
	Catalog  *catalog.Catalog
	Records  *store.Reader
	Outbox   *store.Outbox
	Rebuilds *store.Rebuilds
	Letters  *store.DeadLetters
	// Collections are those that follow the target, in order.
	Collections []syntax.NSID
	Next        Projection
	Logger      *slog.Logger
	// Report, unless nil, is called after each step and each batch.
	Report func(Progress)
}

// Progress is how far a rebuild has come.
type Progress struct {
	Target      record.Target
	Step        string // fill, follow, promote, end, done
	Done, Total int64  // records
	Followed    int64  // changes that came meanwhile
	Since       time.Time
	Resumed     int64 // records that an earlier run had done
}

// Rate is in records a second.
func (p Progress) Rate() float64 { return float64(p.Done-p.Resumed) / time.Since(p.Since).Seconds() }

// ETA is how long the filling will still take at the present rate.
func (p Progress) ETA() time.Duration {
	if rate := p.Rate(); rate > 0 {
		return time.Duration(float64(max(p.Total-p.Done, 0)) / rate * float64(time.Second)).Round(time.Second)
	}
	return 0
}

// Projection is what is built.
type Projection interface {
	Target() record.Target
	// Open prepares a generation of that name to be filled or filled on. fresh tells
	// that it has had to be made; upTo and done are how far it says that it is filled,
	// if it keeps that itself.
	Open(ctx context.Context, generation string) (fresh bool, upTo record.Key, done int64, err error)
	// Project turns records into what Fill takes. Several goroutines may call it.
	Project(records []Reading) any
	// Fill adds what Project has made of records that are not there yet.
	Fill(ctx context.Context, projected any, upTo record.Key, done int64) ([]Failure, error)
	// Write brings records up to date.
	Write(ctx context.Context, items []Item) ([]Failure, error)
	// Promote makes the generation the served one, also if it is already.
	Promote(ctx context.Context) error
	// Discard deletes all generations that are not served.
	Discard(ctx context.Context) error
}

// Reading is a record that has been decoded.
type Reading struct {
	Key     record.Key
	Version int64
	Decoded *project.Reading // nil where the catalog does not know its collection
}

// Item is a record to bring up to date.
type Item struct {
	Key     record.Key
	Version int64
	Present *record.Record // nil: it is gone
}

// Failure is a record that the projection refuses for what it holds.
type Failure struct {
	Key record.Key
	Err error
}

// Abort drops a rebuild that was begun, and what it has built.
func Abort(ctx context.Context, rebuilds *store.Rebuilds, next Projection) error {
	if err := rebuilds.Forget(ctx, next.Target()); err != nil {
		return err
	}
	return next.Discard(ctx)
}

// Run rebuilds, or goes on with a rebuild that was interrupted.
func Run(ctx context.Context, cfg Config) (Progress, error) {
	done, err := RunAll(ctx, cfg)
	return done[0], err
}

// RunAll rebuilds projections at the same time. They are filled together, so that each
// record is read and decoded once; the slowest of them sets the pace. What an earlier
// run has done of one and not of another is done for the other alone.
func RunAll(ctx context.Context, cfgs ...Config) ([]Progress, error) {
	runs := make([]*run, len(cfgs))
	for i, cfg := range cfgs {
		runs[i] = &run{Config: cfg, progress: Progress{Target: cfg.Next.Target(), Since: time.Now()}}
	}
	err := each(ctx, runs, (*run).beginStep)
	if err == nil {
		err = fill(ctx, runs)
	}
	if err == nil {
		err = each(ctx, runs, (*run).finish)
	}
	done := make([]Progress, len(runs))
	for i, r := range runs {
		done[i] = r.progress
	}
	return done, err
}

// each runs a step of all, and ends the others where one fails.
func each(ctx context.Context, runs []*run, do func(*run, context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range runs {
		group.Go(func() error { return do(r, ctx) })
	}
	return group.Wait()
}

func (r *run) beginStep(ctx context.Context) error { return r.step(ctx, "begin", r.begin) }

// finish is all that comes after the filling.
func (r *run) finish(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"follow", r.follow}, {"promote", r.promote}, {"end", r.end}} {
		if err := r.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	r.progress.Step = "done"
	r.report()
	return nil
}

func (r *run) step(ctx context.Context, name string, do func(context.Context) error) error {
	r.progress.Step = name
	if err := do(ctx); err != nil {
		return fmt.Errorf("rebuilding %s, step %s: %w", r.progress.Target, name, err)
	}
	return nil
}

type run struct {
	Config
	at       store.Rebuild
	progress Progress
	queue    chan *part // see fill
}

func (r *run) report() {
	if r.Report != nil {
		r.Report(r.progress)
	}
}

// begin finds the rebuild that is under way, or begins one.
func (r *run) begin(ctx context.Context) error {
	target := r.Next.Target()
	var err error
	r.at, err = r.Rebuilds.Get(ctx, target)
	if errors.Is(err, store.ErrNotFound) {
		err = r.beginAnew(ctx)
	}
	if err != nil {
		return err
	}
	fresh, upTo, done, err := r.Next.Open(ctx, r.at.Name)
	if err != nil {
		return err
	}
	if fresh && (r.at.Done > 0 || r.at.Filled) {
		r.Logger.WarnContext(ctx, "what an earlier run had filled is gone, beginning anew", "target", target)
		if err := Abort(ctx, r.Rebuilds, r.Next); err != nil {
			return err
		}
		return r.begin(ctx)
	}
	if done > 0 {
		r.at.After, r.at.Done = upTo, done
	}
	r.progress.Done, r.progress.Resumed, r.progress.Total = r.at.Done, r.at.Done, r.at.Total
	r.report()
	return nil
}

func (r *run) beginAnew(ctx context.Context) (err error) {
	target := r.Next.Target()
	if err := r.Next.Discard(ctx); err != nil { // what a run left that did not come to note it
		return err
	}
	total, err := r.Records.CountOf(ctx, r.Collections)
	if err != nil {
		return err
	}
	name := "g" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	if err := r.Rebuilds.Begin(ctx, target, name, total); err != nil {
		return err
	}
	r.at, err = r.Rebuilds.Get(ctx, target)
	return err
}

// bury gives what cannot be projected to the dead letters, as the workers do.
func (r *run) bury(ctx context.Context, failures []Failure) error {
	var letters []store.DeadLetter
	for _, f := range failures {
		r.Logger.WarnContext(ctx, "record cannot be projected, dead letter", "uri", f.Key.String(), "error", f.Err)
		letters = append(letters, store.DeadLetter{
			DID: f.Key.DID, Collection: f.Key.Collection, Rkey: f.Key.Rkey,
			Stage: "project:" + string(r.Next.Target()), Class: "permanent", Reason: f.Err.Error(),
		})
	}
	if len(letters) == 0 {
		return nil
	}
	return r.Letters.Add(ctx, letters)
}
