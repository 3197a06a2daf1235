package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// packFrom is how many outbox rows of one projection a batch has to have for them to be
// packed into one. Fewer are written by themselves: who claims them finds them as they are.
const packFrom = 100

// pack is the outbox rows of one projection that a batch has, as parameters of a statement.
type pack struct {
	versions    []int64
	collections []string
	names
}

func (p *pack) add(r *outboxRow) {
	p.versions, p.collections = append(p.versions, r.version), append(p.collections, string(r.key.Collection))
	p.names.add(r.key)
}

// writePacks packs the rows of each projection that has many of them. Those that are
// left in e.outbox come by COPY.
func (e *effect) writePacks(batch *pgx.Batch) {
	rows := map[record.Target]int{}
	for i := range e.outbox {
		rows[e.outbox[i].target]++
	}
	packs := map[record.Target]*pack{}
	var single []outboxRow
	for i := range e.outbox {
		r := &e.outbox[i]
		n := rows[r.target]
		if n < packFrom {
			single = append(single, *r)
			continue
		}
		if packs[r.target] == nil {
			packs[r.target] = newPack(n)
		}
		packs[r.target].add(r)
	}
	e.outbox = single
	for target, p := range packs {
		batch.Queue("INSERT INTO sweeps (version, target, packed, versions, collections, dids, rkeys) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			e.version, target, len(p.versions), p.versions, p.collections, p.dids, p.rkeys)
	}
}

func newPack(rows int) *pack {
	return &pack{
		versions: make([]int64, 0, rows), collections: make([]string, 0, rows),
		names: names{dids: make([]string, 0, rows), rkeys: make([]string, 0, rows)},
	}
}

// unpack writes out at most limit of the rows that are packed for a projection, the
// oldest first, claimed at once. A pack that somebody else is at is passed over.
func unpack(ctx context.Context, tx pgx.Tx, target record.Target, limit int, lease time.Duration) (claimed []record.Pending, err error) {
	for len(claimed) < limit {
		var id int64
		var left int
		err := tx.QueryRow(ctx, `
			SELECT id, packed - taken FROM sweeps WHERE target = $1 AND packed > 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`,
			planned, target).Scan(&id, &left)
		if errors.Is(err, pgx.ErrNoRows) {
			return claimed, nil
		}
		if err != nil {
			return nil, err
		}
		n := min(left, limit-len(claimed))
		rows, err := collect(ctx, tx, scanPending, `
			INSERT INTO outbox (target, version, collection, did, rkey, claimed_until, attempts)
			SELECT target, k.version, k.collection, k.did, k.rkey, now() + $4::interval, 1
			FROM sweeps s, unnest(s.versions[s.taken + 1:s.taken + $3], s.collections[s.taken + 1:s.taken + $3],
				s.dids[s.taken + 1:s.taken + $3], s.rkeys[s.taken + 1:s.taken + $3]) AS k (version, collection, did, rkey)
			WHERE s.target = $1 AND s.id = $2
			RETURNING id, version, collection, did, rkey`, target, id, n, lease)
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, rows...)
		if n < left {
			_, err = tx.Exec(ctx, "UPDATE sweeps SET taken = taken + $3 WHERE target = $1 AND id = $2", target, id, n)
		} else {
			_, err = tx.Exec(ctx, "DELETE FROM sweeps WHERE target = $1 AND id = $2", target, id)
		}
		if err != nil {
			return nil, err
		}
	}
	return claimed, nil
}
