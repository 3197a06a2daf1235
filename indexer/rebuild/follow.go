package rebuild

import (
	"context"
	"time"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

const (
	lease = time.Minute
	// inFlight is longer than anything can take that began to write the old projection
	// before another was promoted: a task has two minutes.
	inFlight = 150 * time.Second
	poll     = 100 * time.Millisecond
	// queries is for how long the old projection stays after the last twin, for the
	// queries that began before another was promoted.
	queries = 5 * time.Second
)

// follow carries out what has changed since the beginning, until it keeps up.
func (r *run) follow(ctx context.Context) error {
	if r.at.Promoted {
		return nil
	}
	for {
		n, err := r.followOnce(ctx)
		if err != nil || n < followRecords {
			return err
		}
	}
}

// followOnce carries out one batch of twins and returns their number.
func (r *run) followOnce(ctx context.Context) (int, error) {
	twin := store.Twin(r.Next.Target())
	rows, err := r.Outbox.Claim(ctx, twin, followRecords, lease)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	items, err := r.items(ctx, rows)
	if err != nil {
		return 0, err
	}
	failures, err := r.Next.Write(ctx, items)
	if err != nil {
		return 0, err
	}
	if err := r.bury(ctx, failures); err != nil {
		return 0, err
	}
	if err := r.Outbox.Done(ctx, twin, rows); err != nil {
		return 0, err
	}
	r.progress.Followed += int64(len(rows))
	r.report()
	return len(rows), nil
}

// read decodes what is there.
func (it Item) read(c *catalog.Catalog) Reading {
	r := Reading{Key: it.Key, Version: it.Version}
	if collection, known := c.Collection(it.Key.Collection); known && it.Present != nil {
		decoded := project.Read(collection, *it.Present)
		r.Decoded = &decoded
	}
	return r
}

const loadRecords = 32 // of up to 1 MB each

// items are the records of rows as they are now.
func (r *run) items(ctx context.Context, rows []record.Pending) ([]Item, error) {
	at := map[record.Key]int{}
	var items []Item
	for _, row := range rows {
		i, ok := at[row.Key]
		if !ok {
			i = len(items)
			at[row.Key] = i
			items = append(items, Item{Key: row.Key})
		}
		items[i].Version = max(items[i].Version, row.Version)
	}
	for first := 0; first < len(items); first += loadRecords {
		part := items[first:min(first+loadRecords, len(items))]
		keys := make([]record.Key, len(part))
		for i := range part {
			keys[i] = part[i].Key
		}
		present, err := r.Records.Load(ctx, keys)
		if err != nil {
			return nil, err
		}
		for i := range part {
			if rec, ok := present[part[i].Key]; ok {
				part[i].Present = &rec
				part[i].Version = max(part[i].Version, rec.Version)
			}
		}
	}
	return items, nil
}

// promote moves reads and writers to the new projection.
func (r *run) promote(ctx context.Context) error {
	if r.at.Promoted {
		return nil
	}
	// From here on it goes to its end: what is promoted and not noted would be promoted
	// again, which is no harm, but a stop should not leave two in an odd state.
	ctx = context.WithoutCancel(ctx)
	if err := r.Next.Promote(ctx); err != nil {
		return err
	}
	r.at.Promoted, r.at.Filled, r.at.Done = true, true, r.progress.Done
	return r.Rebuilds.Save(ctx, r.at)
}

// end waits until nobody can be writing the old projection, stops the twins, carries
// out the last ones, and deletes what is old.
func (r *run) end(ctx context.Context) error {
	if !r.at.Ended {
		if err := r.writersMoved(ctx); err != nil {
			return err
		}
		if err := r.Rebuilds.End(ctx, r.Next.Target()); err != nil {
			return err
		}
	}
	twin := store.Twin(r.Next.Target())
	for {
		n, err := r.followOnce(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		depth, err := r.Outbox.Depth(ctx, twin)
		if err != nil {
			return err
		}
		if depth.Empty() {
			break
		}
		if err := pause(ctx, poll); err != nil { // for the lease of a run that was killed
			return err
		}
	}
	if err := r.Rebuilds.Forget(ctx, r.Next.Target()); err != nil {
		return err
	}
	if err := pause(ctx, queries); err != nil {
		return err
	}
	return r.Next.Discard(ctx)
}

// writersMoved waits for the rows that workers held when the new projection was
// promoted: they may have looked up the old one before. Twins are carried out meanwhile.
func (r *run) writersMoved(ctx context.Context) error {
	held, err := r.Outbox.Held(ctx, r.Next.Target(), nil)
	deadline := time.Now().Add(inFlight)
	for err == nil && len(held) > 0 && time.Now().Before(deadline) {
		if _, err = r.followOnce(ctx); err != nil {
			return err
		}
		if err = pause(ctx, poll); err != nil {
			return err
		}
		held, err = r.Outbox.Held(ctx, r.Next.Target(), held)
	}
	return err
}

func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
