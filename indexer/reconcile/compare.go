package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/relations"
)

// visit is called with a record and its version.
type visit func(record.Key, int64) error

// comparison is of some collections in one projection, which is read as a whole.
type comparison struct {
	target      record.Target
	collections []*catalog.Collection
	has         func(context.Context, visit) error // what the projection holds of them
}

// comparisons are those of a target.
func (r *run) comparisons(target record.Target) (out []comparison) {
	following := r.following(target)
	switch target {
	case record.Search: // an index for each collection
		for _, c := range following {
			out = append(out, comparison{target, []*catalog.Collection{c}, func(ctx context.Context, fn visit) error {
				if err := r.stores.Search.Refresh(ctx, c.NSID); err != nil {
					return err
				}
				return r.stores.Search.Scan(ctx, c.NSID, fn)
			}})
		}
	case record.Graph:
		out = append(out, comparison{target, following, r.only(following, func(ctx context.Context, fn visit) error {
			return r.stores.Graph.Scan(ctx, fn)
		})})
	case record.FullText:
		out = append(out, comparison{target, following, r.only(following, func(ctx context.Context, fn visit) error {
			return r.stores.FullText.Scan(ctx, fn)
		})})
	case record.Tables:
		out = append(out, comparison{target, following, r.only(following, r.layers)})
	case record.Relations:
		out = append(out, comparison{target, following, r.only(following, r.relations)})
	}
	return out
}

// only leaves out what a scan gives of other collections, unless all are compared.
func (r *run) only(following []*catalog.Collection, scan func(context.Context, visit) error) func(context.Context, visit) error {
	if len(r.opts.Collections) == 0 {
		return scan
	}
	wanted := map[syntax.NSID]bool{}
	for _, c := range following {
		wanted[c.NSID] = true
	}
	return func(ctx context.Context, fn visit) error {
		return scan(ctx, func(key record.Key, version int64) error {
			if !wanted[key.Collection] {
				return nil
			}
			return fn(key, version)
		})
	}
}

const page = 5000

func (r *run) layers(ctx context.Context, fn visit) error {
	return paged(ctx, r.stores.Tables.ScanLayers, func(s store.LayerState) error { return fn(s.Key, s.Version) },
		func(s store.LayerState) record.Key { return s.Key })
}

func (r *run) relations(ctx context.Context, fn visit) error {
	return paged(ctx, r.stores.Relations.Scan, func(s relations.State) error { return fn(s.Key, s.Version) },
		func(s relations.State) record.Key { return s.Key })
}

// paged gives fn all that a scan gives in pages, each of which begins after a key.
func paged[S any](ctx context.Context, scan func(context.Context, record.Key, int) ([]S, error), fn func(S) error, key func(S) record.Key) error {
	for after := (record.Key{}); ; {
		states, err := scan(ctx, after, page)
		if err != nil {
			return err
		}
		for _, s := range states {
			if err := fn(s); err != nil {
				return err
			}
			after = key(s)
		}
		if len(states) < page {
			return nil
		}
	}
}

// wants visits what PostgreSQL holds of the collections.
func (r *run) wants(ctx context.Context, collections []*catalog.Collection, fn visit) error {
	for _, c := range collections {
		for after := (record.Key{}); ; {
			rows, err := r.stores.Records.ScanVersions(ctx, c.NSID, after, page)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if err := fn(row.Key, row.Version); err != nil {
					return err
				}
				after = row.Key
			}
			if len(rows) < page {
				break
			}
		}
	}
	return nil
}

// compare finds the differences of one comparison and adds to the report those
// that stay when looked at again: the two sides are not read at the same moment.
func (r *run) compare(ctx context.Context, c comparison) error {
	found := &findings{target: c.target}
	// The records are held in parts, by their hash, each part as large as memory allows.
	for p := (partition{parts: 1}); p.part < p.parts; p.part++ {
		if err := r.comparePart(ctx, c, &p, found); err != nil {
			return err
		}
	}
	for range looks {
		if len(found.list) == 0 {
			break
		}
		if err := r.lookAgain(ctx, c, found); err != nil {
			return err
		}
	}
	return r.conclude(ctx, c, found)
}

// looks is how often a difference has to be seen after it was found, and lookPause
// the time between.
const (
	looks     = 2
	lookPause = 500 * time.Millisecond
)

type digest [16]byte

func digestOf(key record.Key) digest {
	sum := sha256.Sum256([]byte(key.String()))
	return digest(sum[:16])
}

// partition picks the records whose hash falls into one of several equal parts.
type partition struct{ part, parts uint64 }

func (p partition) has(d digest) bool { return binary.BigEndian.Uint64(d[:8])%p.parts == p.part }

// comparePart holds one part of PostgreSQL's records and goes through the projection.
func (r *run) comparePart(ctx context.Context, c comparison, p *partition, found *findings) error {
	held := map[digest]int64{}
	hold := func(key record.Key, version int64) error {
		if d := digestOf(key); p.has(d) {
			held[d] = version
		}
		if p.part == 0 && len(held) > r.opts.Held { // only the first part learns how many are needed
			p.parts *= 2
			for d := range held {
				if !p.has(d) {
					delete(held, d)
				}
			}
		}
		return nil
	}
	if err := r.wants(ctx, c.collections, hold); err != nil {
		return err
	}
	r.report.Compared[c.target] += int64(len(held))
	err := c.has(ctx, func(key record.Key, version int64) error {
		d := digestOf(key)
		if !p.has(d) {
			return nil
		}
		want, ok := held[d]
		delete(held, d)
		switch {
		case !ok:
			found.add(Difference{Kind: Extra, Key: key, Got: version})
		case version < want:
			found.add(Difference{Kind: Stale, Key: key, Want: want, Got: version})
		default:
			known, err := r.knows(ctx, version)
			if !known && err == nil {
				found.add(Difference{Kind: Ahead, Key: key, Want: want, Got: version})
			}
			return err
		}
		return nil
	})
	if err != nil || len(held) == 0 {
		return err
	}
	return r.wants(ctx, c.collections, func(key record.Key, version int64) error {
		if _, missing := held[digestOf(key)]; missing {
			found.add(Difference{Kind: Missing, Key: key, Want: version})
		}
		return nil
	})
}

// findings are the differences of one comparison.
type findings struct {
	target   record.Target
	list     []Difference
	unlisted int64
}

func (f *findings) add(d Difference) {
	if len(f.list) == maxListed {
		f.unlisted++
		return
	}
	d.Target = f.target
	f.list = append(f.list, d)
}

// lookAgain keeps the differences that are still there.
func (r *run) lookAgain(ctx context.Context, c comparison, found *findings) error {
	if err := r.pause(ctx, c.target); err != nil {
		return err
	}
	keys := make([]record.Key, len(found.list))
	for i, d := range found.list {
		keys[i] = d.Key
	}
	want, err := r.versions(ctx, keys)
	if err != nil {
		return err
	}
	suspect := make(map[record.Key]bool, len(keys))
	for _, key := range keys {
		suspect[key] = true
	}
	got := map[record.Key]int64{}
	err = c.has(ctx, func(key record.Key, version int64) error {
		if suspect[key] {
			got[key] = version
		}
		return nil
	})
	if err != nil {
		return err
	}
	var failed error
	found.list = slices.DeleteFunc(found.list, func(d Difference) bool {
		want, there := want[d.Key]
		got, projected := got[d.Key]
		known, err := r.knows(ctx, got)
		failed = errors.Join(failed, err)
		return there == projected && got >= want && known
	})
	return failed
}

// knows tells whether PostgreSQL has given out a version, and not lost it. The clock
// is read anew only for versions beyond it, which a projection has of what was
// committed since.
func (r *run) knows(ctx context.Context, version int64) (bool, error) {
	if version > r.history.Clock {
		var err error
		if r.history, err = r.stores.Records.History(ctx); err != nil {
			return false, err
		}
	}
	return r.history.Knows(version), nil
}

// pause lets a change that has come in between find its way.
func (r *run) pause(ctx context.Context, target record.Target) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(lookPause):
		return r.caughtUp(ctx, target)
	}
}

const loadPage = 32 // records, of up to 1 MB each

// versions are those of the records that are there among keys.
func (r *run) versions(ctx context.Context, keys []record.Key) (map[record.Key]int64, error) {
	out := make(map[record.Key]int64, len(keys))
	for part := range slices.Chunk(keys, loadPage) {
		records, err := r.stores.Records.Load(ctx, part)
		if err != nil {
			return nil, err
		}
		for key, rec := range records {
			out[key] = rec.Version
		}
	}
	return out, nil
}

// conclude reports the findings, and has them repaired if that is asked for.
func (r *run) conclude(ctx context.Context, c comparison, found *findings) error {
	if len(found.list) == 0 && found.unlisted == 0 {
		return nil
	}
	depth, err := r.stores.Outbox.Depth(ctx, c.target)
	if err != nil {
		return err
	}
	for i := range found.list {
		found.list[i].InFlight = !depth.Empty()
	}
	r.report.Differences = append(r.report.Differences, found.list...)
	r.report.Unlisted += found.unlisted
	if !r.opts.Repair {
		return nil
	}
	if found.unlisted > 0 {
		return r.repairAll(ctx, c, found)
	}
	return r.repair(ctx, c.target, found.list)
}

// repair enqueues the records that differ: what is there is written again, what is
// not is removed.
func (r *run) repair(ctx context.Context, target record.Target, differences []Difference) error {
	keys := make([]record.Key, len(differences))
	for i, d := range differences {
		keys[i] = d.Key
	}
	if err := r.stores.Outbox.Enqueue(ctx, target, keys); err != nil {
		return fmt.Errorf("enqueueing a repair: %w", err)
	}
	r.report.Enqueued += int64(len(keys))
	return nil
}

// repairAll enqueues whole collections, and those extra records that are known:
// where there are more, the next run finds them.
func (r *run) repairAll(ctx context.Context, c comparison, found *findings) error {
	var nsids []syntax.NSID
	for _, collection := range c.collections {
		nsids = append(nsids, collection.NSID)
	}
	if err := r.stores.Outbox.EnqueueCollections(ctx, c.target, nsids); err != nil {
		return fmt.Errorf("enqueueing a repair: %w", err)
	}
	r.report.Enqueued += int64(len(nsids))
	extra := slices.DeleteFunc(slices.Clone(found.list), func(d Difference) bool { return d.Kind != Extra })
	return r.repair(ctx, c.target, extra)
}
