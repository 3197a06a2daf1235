package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// A reference may come before what it refers to. When a record arrives that
// others refer to already, their documents and subgraphs have to be written
// again, since these say what the reference leads to.

// maxReferrers is how many of a record's referrers are enqueued in the
// transaction in which it arrives; where there are more, a sweep takes them all.
const maxReferrers = 10

// waiting are the projections in which a reference looks different once its
// target is there. The read tables know nothing of targets.
var waiting = []record.Target{record.Search, record.Graph}

// arrival is a record with more referrers than are enqueued at once.
type arrival struct {
	key     record.Key
	version int64
}

// queueReferrers asks who refers to the records that may arrive, by the hashes of their
// URIs alone: a record with another target of the same hash would be projected once more
// than it must. Those of the batch itself are not in refs yet, and get outbox rows anyway.
func (p *present) queueReferrers(batch *pgx.Batch, changes []keyChange) {
	arriving := make([]*keyChange, 0, len(changes))
	for i := range changes {
		if changes[i].Action != record.Delete {
			arriving = append(arriving, &changes[i])
		}
	}
	if len(arriving) == 0 {
		return
	}
	// In the order of the index.
	slices.SortFunc(arriving, func(a, b *keyChange) int { return cmp.Compare(a.prepared.hash, b.prepared.hash) })
	hashes := make([]int64, len(arriving))
	for i, c := range arriving {
		hashes[i] = c.prepared.hash
	}
	batch.Queue(`
		SELECT u.ord, s.collection, s.did, s.rkey FROM unnest($1::bigint[]) WITH ORDINALITY AS u (hash, ord)
		CROSS JOIN LATERAL (
			SELECT DISTINCT collection, did, rkey FROM refs
			WHERE target_hash = u.hash
			ORDER BY collection, did, rkey LIMIT $2) s`, hashes, maxReferrers+1).
		Query(func(rows pgx.Rows) error {
			var ord int
			var from record.Key
			_, err := pgx.ForEachRow(rows, []any{&ord, &from.Collection, &from.DID, &from.Rkey}, func() error {
				key := arriving[ord-1].Key
				p.referrers[key] = append(p.referrers[key], from)
				return nil
			})
			return err
		})
}

// decideReferrers enqueues who refers to a record that arrives. The rows have the
// version of the arrival: newer than whatever was projected of the referrers
// before it.
func (w *Writer) decideReferrers(e *effect, p *present, key record.Key, version int64) {
	from := p.referrers[key]
	if len(from) > maxReferrers {
		e.arrived = append(e.arrived, arrival{key: key, version: version})
		return
	}
	for _, referrer := range from {
		for _, target := range w.routes[referrer.Collection] {
			if slices.Contains(waiting, target) {
				e.outbox = append(e.outbox, outboxRow{target: target, key: referrer, version: version})
			}
		}
	}
}

// refRows are rows of refs, as parameters of a statement.
type refRows struct {
	hashes      []int64
	collections []string
	names
}

func (r *refRows) add(source record.Key, targets []int64) {
	for _, hash := range targets {
		r.hashes, r.collections = append(r.hashes, hash), append(r.collections, string(source.Collection))
		r.names.add(source)
	}
}

// writeRefs removes the references of the records that are deleted or replaced. The
// new ones come by COPY, see [copyRefs].
func (e *effect) writeRefs(batch *pgx.Batch) {
	if len(e.ended.hashes) == 0 {
		return
	}
	batch.Queue(`DELETE FROM refs r USING unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS k (hash, collection, did, rkey)
		WHERE r.target_hash = k.hash AND r.collection = k.collection AND r.did = k.did AND r.rkey = k.rkey`,
		e.ended.hashes, e.ended.collections, e.ended.dids, e.ended.rkeys)
}

// Referrer is a reference with the record that has it.
type Referrer struct {
	Key  record.Key
	Path string // in the record's value, as in [record.Ref]
}

// Referrers returns who refers to a record, a DID or a URI, in the order of their collections,
// DIDs and record keys: up to limit after a given one; begin with the zero Referrer.
func (r *Reader) Referrers(ctx context.Context, target string, after Referrer, limit int) ([]Referrer, error) {
	scan := func(row pgx.CollectableRow) (f Referrer, err error) {
		err = row.Scan(&f.Key.Collection, &f.Key.DID, &f.Key.Rkey, &f.Path)
		return f, err
	}
	found, err := collect(ctx, r.pool, scan, `
		SELECT r.collection, r.did, r.rkey, r.path FROM refs r
		WHERE r.target_hash = $7 AND r.target = $1
			AND (r.collection, r.did, r.rkey) >= ($2, $3, $4) AND (r.collection, r.did, r.rkey, r.path) > ($2, $3, $4, $5)
			AND `+ofActive+`
		ORDER BY r.collection, r.did, r.rkey, r.path LIMIT $6`,
		planned, target, after.Key.Collection, after.Key.DID, after.Key.Rkey, after.Path, limit, TargetHash(target))
	if err != nil {
		return nil, fmt.Errorf("read who refers to %s: %w", target, err)
	}
	return found, nil
}
