package rebuild

import (
	"cmp"
	"context"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/record"
)

const (
	fillRecords   = 1000 // in one batch
	scanRecords   = 500  // in one query
	followRecords = 500

	projectors = 2
	ahead      = 2 // batches that wait for a projection to take them
)

// batch is a part of a collection on its way to the projections that want it.
type batch struct {
	records []record.Record
	parts   []*part
}

// part is what one projection wants of a batch: all of it, or what comes after that
// which an earlier run has filled.
type part struct {
	run       *run
	first     int // in the batch
	last      record.Key
	count     int64
	projected chan any
}

// fill reads, projects and writes at the same time, each projection in order.
func fill(ctx context.Context, all []*run) error {
	var runs []*run
	for _, r := range all {
		r.progress.Step = "fill"
		if !r.at.Filled {
			r.queue = make(chan *part, ahead)
			runs = append(runs, r)
		}
	}
	if len(runs) == 0 {
		return nil
	}
	work := make(chan *batch, ahead)
	group, filling := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer func() {
			close(work)
			for _, r := range runs {
				close(r.queue)
			}
		}()
		return scan(filling, runs, func(b *batch) error { return b.send(filling, work) })
	})
	for range projectors {
		group.Go(func() error {
			for b := range work {
				b.project()
			}
			return nil
		})
	}
	for _, r := range runs {
		group.Go(func() error { return r.step(filling, "fill", r.fill) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, r := range runs { // not before: a queue also ends where the scan fails
		r.at.Filled, r.at.Done = true, r.progress.Done
		if err := r.Rebuilds.Save(ctx, r.at); err != nil {
			return err
		}
	}
	return nil
}

// send hands a batch to those who project it and those who wait for that.
func (b *batch) send(ctx context.Context, work chan<- *batch) error {
	select {
	case work <- b:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, p := range b.parts {
		select {
		case p.run.queue <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// project decodes each record once.
func (b *batch) project() {
	c, known := b.parts[0].run.Catalog.Collection(b.records[0].Key.Collection)
	readings := make([]Reading, len(b.records))
	for i, rec := range b.records {
		readings[i] = Reading{Key: rec.Key, Version: rec.Version}
		if known {
			decoded := project.Read(c, rec)
			readings[i].Decoded = &decoded
		}
	}
	for _, p := range b.parts {
		p.projected <- p.run.Next.Project(readings[p.first:])
	}
}

// fill writes what comes.
func (r *run) fill(ctx context.Context) error {
	for p := range r.queue {
		if err := r.fillPart(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) fillPart(ctx context.Context, p *part) error {
	done := r.progress.Done + p.count
	var projected any
	select {
	case projected = <-p.projected:
	case <-ctx.Done():
		return ctx.Err()
	}
	failures, err := r.Next.Fill(ctx, projected, p.last, done)
	if err != nil {
		return err
	}
	if err := r.bury(ctx, failures); err != nil {
		return err
	}
	at := r.at
	at.After, at.Done = p.last, done
	if err := r.Rebuilds.Save(ctx, at); err != nil {
		return err
	}
	r.progress.Done = done
	r.report()
	return nil
}

// scan hands on all records that come after what is filled.
func scan(ctx context.Context, runs []*run, emit func(*batch) error) error {
	for _, collection := range collections(runs) {
		wanted := slices.DeleteFunc(slices.Clone(runs), func(r *run) bool { return !r.wants(collection) })
		if len(wanted) == 0 {
			continue
		}
		if err := scanCollection(ctx, collection, wanted, emit); err != nil {
			return err
		}
	}
	return nil
}

func scanCollection(ctx context.Context, collection syntax.NSID, wanted []*run, emit func(*batch) error) error {
	after := wanted[0].after(collection)
	for _, r := range wanted[1:] {
		if at := r.after(collection); order(at, after) < 0 {
			after = at
		}
	}
	var records []record.Record
	for {
		page, err := wanted[0].Records.ScanPage(ctx, collection, after, scanRecords)
		if err != nil {
			return err
		}
		records = append(records, page...)
		if len(records) > 0 && (len(page) < scanRecords || len(records) > fillRecords-scanRecords) {
			if err := emit(newBatch(records, wanted)); err != nil {
				return err
			}
			records = nil
		}
		if len(page) == 0 {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

func newBatch(records []record.Record, wanted []*run) *batch {
	b := &batch{records: records}
	for _, r := range wanted {
		after := r.after(records[0].Key.Collection)
		first, found := slices.BinarySearchFunc(records, after, func(rec record.Record, at record.Key) int { return order(rec.Key, at) })
		if found {
			first++
		}
		if first == len(records) {
			continue
		}
		b.parts = append(b.parts, &part{
			run: r, first: first, last: records[len(records)-1].Key, count: int64(len(records) - first), projected: make(chan any, 1),
		})
	}
	return b
}

// collections are those of any run, in order.
func collections(runs []*run) []syntax.NSID {
	var all []syntax.NSID
	for _, r := range runs {
		all = append(all, r.Collections...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// wants tells whether something of a collection has yet to be filled.
func (r *run) wants(collection syntax.NSID) bool {
	return collection >= r.at.After.Collection && slices.Contains(r.Collections, collection)
}

// after is the record of a collection up to which the projection is filled.
func (r *run) after(collection syntax.NSID) record.Key {
	if collection == r.at.After.Collection {
		return r.at.After
	}
	return record.Key{Collection: collection}
}

// order is that of a scan of one collection.
func order(a, b record.Key) int {
	return cmp.Or(cmp.Compare(a.DID, b.DID), cmp.Compare(a.Rkey, b.Rkey))
}
