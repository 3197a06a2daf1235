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
	Project(records []record.Record) any
	// Fill adds what Project has made of records that are not there yet.
	Fill(ctx context.Context, projected any, upTo record.Key, done int64) ([]Failure, error)
	// Write brings records up to date.
	Write(ctx context.Context, items []Item) ([]Failure, error)
	// Promote makes the generation the served one, also if it is already.
	Promote(ctx context.Context) error
	// Discard deletes all generations that are not served.
	Discard(ctx context.Context) error
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
	r := &run{Config: cfg, progress: Progress{Target: cfg.Next.Target(), Since: time.Now()}}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"begin", r.begin}, {"fill", r.fill}, {"follow", r.follow}, {"promote", r.promote}, {"end", r.end}} {
		r.progress.Step = step.name
		if err := step.do(ctx); err != nil {
			return r.progress, fmt.Errorf("rebuilding %s, step %s: %w", r.progress.Target, step.name, err)
		}
	}
	r.progress.Step = "done"
	r.report()
	return r.progress, nil
}

type run struct {
	Config
	at       store.Rebuild
	progress Progress
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

const (
	fillRecords   = 1000 // in one batch
	scanRecords   = 500  // in one query
	followRecords = 500
)

// batch is a part of a collection on its way.
type batch struct {
	records   []record.Record
	projected chan any
}

// fill reads, projects and writes at the same time, in order.
func (r *run) fill(ctx context.Context) error {
	if r.at.Filled {
		return nil
	}
	batches := make(chan *batch, 2)
	work := make(chan *batch, 2)
	group, filling := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		defer close(work)
		return r.scan(filling, func(b *batch) error {
			for _, to := range []chan *batch{batches, work} {
				select {
				case to <- b:
				case <-filling.Done():
					return filling.Err()
				}
			}
			return nil
		})
	})
	for range 2 {
		group.Go(func() error {
			for b := range work {
				b.projected <- r.Next.Project(b.records)
			}
			return nil
		})
	}
	group.Go(func() error {
		for b := range batches {
			if err := r.fillBatch(filling, b); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	r.at.Filled, r.at.Done = true, r.progress.Done
	return r.Rebuilds.Save(ctx, r.at)
}

// scan hands on all records that come after what is filled.
func (r *run) scan(ctx context.Context, emit func(*batch) error) error {
	for _, collection := range r.Collections {
		if collection < r.at.After.Collection {
			continue
		}
		after := record.Key{Collection: collection}
		if collection == r.at.After.Collection {
			after = r.at.After
		}
		b := &batch{projected: make(chan any, 1)}
		for {
			page, err := r.Records.ScanPage(ctx, collection, after, scanRecords)
			if err != nil {
				return err
			}
			b.records = append(b.records, page...)
			if len(b.records) > 0 && (len(page) == 0 || len(b.records) > fillRecords-scanRecords || len(page) < scanRecords) {
				if err := emit(b); err != nil {
					return err
				}
				b = &batch{projected: make(chan any, 1)}
			}
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].Key
		}
	}
	return nil
}

func (r *run) fillBatch(ctx context.Context, b *batch) error {
	upTo := b.records[len(b.records)-1].Key
	done := r.progress.Done + int64(len(b.records))
	var projected any
	select {
	case projected = <-b.projected:
	case <-ctx.Done():
		return ctx.Err()
	}
	failures, err := r.Next.Fill(ctx, projected, upTo, done)
	if err != nil {
		return err
	}
	if err := r.bury(ctx, failures); err != nil {
		return err
	}
	at := r.at
	at.After, at.Done = upTo, done
	if err := r.Rebuilds.Save(ctx, at); err != nil {
		return err
	}
	r.progress.Done = done
	r.report()
	return nil
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
