package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// pendingSweep is a row of sweeps: a promise of outbox rows, and how far it has been kept.
type pendingSweep struct {
	id, version                      int64
	collection, did, referent        string
	afterCollection, afterDID, after string
}

// maxSweeps is how many sweeps one claim takes a bit of; some hold no record at all.
const maxSweeps = 64

// sweep turns a bit of the oldest sweeps of a projection into at most limit rows,
// claimed at once. A sweep that somebody else is at is passed over.
func sweep(ctx context.Context, tx pgx.Tx, target record.Target, limit int, lease time.Duration) (claimed []record.Pending, err error) {
	for range maxSweeps {
		if limit <= 0 {
			break
		}
		s := pendingSweep{}
		err := tx.QueryRow(ctx, `
			SELECT id, version, collection, did, referent, after_collection, after_did, after_rkey
			FROM sweeps WHERE target = $1 AND packed = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`, planned, target).
			Scan(&s.id, &s.version, &s.collection, &s.did, &s.referent, &s.afterCollection, &s.afterDID, &s.after)
		if errors.Is(err, pgx.ErrNoRows) {
			return claimed, nil
		}
		if err != nil {
			return nil, err
		}
		rows, err := s.step(ctx, tx, target, limit, lease)
		if err != nil {
			return nil, err
		}
		claimed, limit = append(claimed, rows...), limit-len(rows)
	}
	return claimed, nil
}

// step takes the next records of a sweep, and ends it when they are the last.
func (s *pendingSweep) step(ctx context.Context, tx pgx.Tx, target record.Target, limit int, lease time.Duration) ([]record.Pending, error) {
	keys, err := s.next(ctx, tx, target, limit)
	if err != nil {
		return nil, err
	}
	if len(keys) < limit {
		_, err = tx.Exec(ctx, "DELETE FROM sweeps WHERE target = $1 AND id = $2", target, s.id)
	} else {
		last := keys[len(keys)-1]
		_, err = tx.Exec(ctx, "UPDATE sweeps SET after_collection = $3, after_did = $4, after_rkey = $5 WHERE target = $1 AND id = $2",
			target, s.id, last.Collection, last.DID, last.Rkey)
	}
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	collections, n := splitKeys(keys)
	return collect(ctx, tx, scanPending, `
		INSERT INTO outbox (target, version, collection, did, rkey, claimed_until, attempts)
		SELECT $1, $2, collection, did, rkey, now() + $3::interval, 1
		FROM unnest($4::text[], $5::text[], $6::text[]) AS k (collection, did, rkey)
		RETURNING id, version, collection, did, rkey`, target, s.version, lease, collections, n.dids, n.rkeys)
}

// next reads the keys that follow the last one: fewer than limit at the sweep's end.
func (s *pendingSweep) next(ctx context.Context, tx pgx.Tx, target record.Target, limit int) ([]record.Key, error) {
	switch {
	case s.referent != "":
		return collect(ctx, tx, scanKey, `
			SELECT collection, did, rkey FROM (
				SELECT DISTINCT collection, did, rkey FROM refs
				WHERE target_hash = $7 AND target = $2 AND (collection, did, rkey) > ($3, $4, $5)
			) s JOIN routes USING (collection) WHERE routes.target = rtrim($1, '+') ORDER BY collection, did, rkey LIMIT $6`,
			planned, target, s.referent, s.afterCollection, s.afterDID, s.after, limit, TargetHash(s.referent))
	case s.did != "":
		return collect(ctx, tx, scanKey, `
			SELECT collection, did, rkey FROM records WHERE collection = $1 AND did = $2 AND rkey > $3 ORDER BY rkey LIMIT $4`,
			planned, s.collection, s.did, s.after, limit)
	default:
		return collect(ctx, tx, scanKey, `
			SELECT collection, did, rkey FROM records WHERE collection = $1 AND (did, rkey) > ($2, $3) ORDER BY did, rkey LIMIT $4`,
			planned, s.collection, s.afterDID, s.after, limit)
	}
}

// Filling tells whether a projection is being filled: whether a sweep of a whole
// collection is pending for it, because the projection is new or is to be written again.
// Until that has ended, and for seconds after, it may lack records.
func Filling(ctx context.Context, from querier, target record.Target) (bool, error) {
	filling, err := collect(ctx, from, pgx.RowTo[bool], "SELECT EXISTS (SELECT FROM sweeps WHERE target = $1 AND did = '' AND referent = '' AND packed = 0)", target)
	if err != nil {
		return false, fmt.Errorf("look whether %s is being filled: %w", target, err)
	}
	return filling[0], nil
}

// Filling is [Filling] by the reader's pool.
func (r *Reader) Filling(ctx context.Context, target record.Target) (bool, error) {
	return Filling(ctx, r.pool, target)
}

// writeSweeps adds sweeps for the repositories that became active or inactive, one
// for each collection in which they have records, and for the referrers of
// records that arrived with too many of them.
func (e *effect) writeSweeps(batch *pgx.Batch) {
	var dids, uris []string
	var flipped, arrived []int64
	for _, f := range e.flips {
		dids, flipped = append(dids, string(f.did)), append(flipped, f.version)
	}
	for _, a := range e.arrived {
		uris, arrived = append(uris, a.key.String()), append(arrived, a.version)
	}
	if len(dids) > 0 {
		batch.Queue(`
			INSERT INTO sweeps (version, target, collection, did)
			SELECT f.version, following.target, following.collection, f.did
			FROM unnest($1::text[], $2::bigint[]) AS f (did, version) CROSS JOIN following
			CROSS JOIN LATERAL (SELECT FROM records r WHERE r.collection = following.collection AND r.did = f.did LIMIT 1) present`,
			dids, flipped)
	}
	if len(uris) > 0 {
		batch.Queue(`
			INSERT INTO sweeps (version, target, referent)
			SELECT a.version, t.target, a.uri FROM unnest($1::text[], $2::bigint[]) AS a (uri, version)
			CROSS JOIN (SELECT DISTINCT target FROM following WHERE rtrim(target, '+') = ANY ($3::text[])) t`,
			uris, arrived, waiting)
	}
}
