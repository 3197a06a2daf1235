package store

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// sortKey is the place of a record in lists, see the column of that name.
func sortKey(created, indexed time.Time) int64 {
	if !created.IsZero() && created.Before(indexed) {
		indexed = created
	}
	return -indexed.UnixMicro()
}

// writeRecords deletes and replaces. What is new comes by COPY, see [copyRecords].
func (e *effect) writeRecords(batch *pgx.Batch) {
	for collection, gone := range byCollection(e.deletes) {
		batch.Queue(`DELETE FROM records r USING unnest($1::text[], $2::text[]) AS k (did, rkey)
			WHERE r.collection = `+quote(string(collection))+` AND r.did = k.did AND r.rkey = k.rkey`, gone.dids, gone.rkeys)
	}
	changed := map[syntax.NSID]*columns{}
	for i := range e.updates {
		r := &e.updates[i]
		c := changed[r.Key.Collection]
		if c == nil {
			c = &columns{}
			changed[r.Key.Collection] = c
		}
		c.add(r, e.now)
	}
	for collection, c := range changed {
		batch.Queue(`
			UPDATE records r SET version = u.version, created_at = u.created_at, cid = u.cid, rev = u.rev,
				filter = u.filter::jsonb, value = u.value, targets = u.targets::bigint[],
				sort_key = CASE WHEN u.renewed THEN u.sort_key ELSE r.sort_key END,
				indexed_at = CASE WHEN u.renewed THEN now() ELSE r.indexed_at END
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::text[], $9::json[], $10::boolean[], $11::text[])
				AS u (did, rkey, cid, rev, version, sort_key, created_at, filter, value, renewed, targets)
			WHERE r.collection = `+quote(string(collection))+` AND r.did = u.did AND r.rkey = u.rkey`,
			c.dids, c.rkeys, c.cids, c.revs, c.versions, c.sortKeys, c.created, c.filters, c.values, c.renewed, c.targets)
	}
}

// columns are rows of one collection, as parameters of a statement.
type columns struct {
	names
	cids, revs         []string
	versions, sortKeys []int64
	created            []*time.Time
	filters            []*string
	values             []json.RawMessage
	renewed            []bool
	targets            []string // an array each, as SQL has it in a text
}

func (c *columns) add(r *row, now time.Time) {
	c.names.add(r.Key)
	c.cids, c.revs = append(c.cids, string(r.CID)), append(c.revs, string(r.Rev))
	c.versions, c.sortKeys = append(c.versions, r.version), append(c.sortKeys, sortKey(r.CreatedAt, now))
	c.created, c.filters, c.values = append(c.created, r.created()), append(c.filters, r.prepared.filter), append(c.values, r.JSON)
	c.renewed, c.targets = append(c.renewed, r.renewed), append(c.targets, arrayText(r.prepared.hashes))
}

// arrayText is an array in a text: one of arrays would have to be of equal ones.
func arrayText(numbers []int64) string {
	text := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(append(text, '}'))
}

// created is when the record claims to have been made; nil where it does not say.
func (r *row) created() *time.Time {
	if r.CreatedAt.IsZero() {
		return nil
	}
	return &r.CreatedAt
}

func scanKey(row pgx.CollectableRow) (k record.Key, err error) {
	err = row.Scan(&k.Collection, &k.DID, &k.Rkey)
	return k, err
}

const recordColumns = "r.version, r.indexed_at, r.created_at, r.collection, r.did, r.rkey, r.cid, r.rev, r.value"

// scanRecord reads a row of recordColumns, and of what follows them into more.
func scanRecord(row pgx.CollectableRow, more ...any) (r record.Record, err error) {
	var created *time.Time
	into := []any{&r.Version, &r.IndexedAt, &created, &r.Key.Collection, &r.Key.DID, &r.Key.Rkey, &r.CID, &r.Rev, (*[]byte)(&r.Value)}
	err = row.Scan(append(into, more...)...)
	if created != nil {
		r.CreatedAt = *created
	}
	return r, err
}
