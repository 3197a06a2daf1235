package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Reference is a row of the references: what a record names, and where.
type Reference struct {
	Source record.Key
	Path   string // as in [record.Ref]
	Target string // an AT-URI, a DID or a URI, as the record has it
}

// ReferenceQuery asks for references in one direction. Empty filters match all.
type ReferenceQuery struct {
	// Targets are the names of one thing, any of which a record may use; or, for
	// what a record refers to, Source is set.
	Targets []string
	Source  *record.Key
	// Collection is that of the record at the other end.
	Collection syntax.NSID
	Path       string
	After      *Reference // the last of the page before; nil for the first page
	Limit      int
}

// References returns a page of references, of records that are there; more tells
// whether another follows. Backward ones are in the order of their sources, forward
// ones in that of their paths.
func (r *Reader) References(ctx context.Context, query ReferenceQuery) (page []Reference, more bool, err error) {
	q := &statement{mode: planned}
	q.write("SELECT r.collection, r.did, r.rkey, r.path, r.target FROM refs r WHERE ")
	if query.Source != nil {
		q.forward(&query)
	} else {
		q.backward(&query)
	}
	if query.Path != "" {
		q.write(" AND r.path = ", q.arg(query.Path))
	}
	q.write(" AND ", ofActive, " ORDER BY r.collection, r.did, r.rkey, r.path, r.target LIMIT ", q.arg(query.Limit+1))
	page, err = collect(ctx, r.pool, scanReference, q.String(), q.arguments()...)
	if err != nil {
		return nil, false, fmt.Errorf("read references: %w", err)
	}
	if len(page) > query.Limit {
		return page[:query.Limit], true, nil
	}
	return page, false, nil
}

func (q *statement) forward(query *ReferenceQuery) {
	q.sourceIs(*query.Source)
	if query.Collection != "" {
		q.write(" AND starts_with(r.target, 'at://') AND split_part(r.target, '/', 4) = ", q.arg(query.Collection))
	}
	if at := query.After; at != nil {
		q.write(" AND (r.path, r.target) > (", q.arg(at.Path), ", ", q.arg(at.Target), ")")
	}
}

func (q *statement) sourceIs(key record.Key) {
	c, d, k := q.arg(key.Collection), q.arg(key.DID), q.arg(key.Rkey)
	q.write("r.target_hash = ANY ((SELECT s.targets FROM records s WHERE s.collection = ", c, " AND s.did = ", d, " AND s.rkey = ", k, ")::bigint[])",
		" AND r.collection = ", c, " AND r.did = ", d, " AND r.rkey = ", k)
}

func (q *statement) backward(query *ReferenceQuery) {
	q.targetIs(query.Targets)
	if query.Collection != "" {
		q.write(" AND r.collection = ", q.arg(query.Collection))
	}
	if at := query.After; at != nil {
		// The first is what the index can begin at.
		c, d, k := q.arg(at.Source.Collection), q.arg(at.Source.DID), q.arg(at.Source.Rkey)
		q.write(" AND (r.collection, r.did, r.rkey) >= (", c, ", ", d, ", ", k, ")",
			" AND (r.collection, r.did, r.rkey, r.path, r.target) > (", c, ", ", d, ", ", k, ", ", q.arg(at.Path), ", ", q.arg(at.Target), ")")
	}
}

// referring joins the references of a record, whose hashes it has, under a name.
func referring(from, name string) string {
	return "CROSS JOIN LATERAL unnest(" + from + ".targets) AS of_" + name + " (hash) JOIN refs " + name + " ON " + name + ".target_hash = of_" + name + ".hash" +
		" AND " + name + ".collection = " + from + ".collection AND " + name + ".did = " + from + ".did AND " + name + ".rkey = " + from + ".rkey"
}

// targetIs picks references to any of some names. One is the rule, and keeps the
// order of the index.
func (q *statement) targetIs(targets []string) {
	var alternatives []string
	for _, target := range targets {
		alternatives = append(alternatives, "r.target_hash = "+q.arg(TargetHash(target))+" AND r.target = "+q.arg(target))
	}
	q.write("(", strings.Join(alternatives, " OR "), ")")
}

func scanReference(row pgx.CollectableRow) (f Reference, err error) {
	err = row.Scan(&f.Source.Collection, &f.Source.DID, &f.Source.Rkey, &f.Path, &f.Target)
	return f, err
}

// Targets returns what some records refer to at some paths, or at all of them where
// paths is nil, in the order of the records; at most limit references. Paths leave out
// the [] of "any element".
func (r *Reader) Targets(ctx context.Context, sources []record.Key, paths []string, limit int) ([]Reference, error) {
	order := make(map[record.Key]int, len(sources))
	for i, key := range sources {
		order[key] = i
	}
	var found []Reference
	err := r.together(ctx, lookup{
		columns: "r.collection, r.did, r.rkey, f.path, f.target",
		join:    referring("r", "f"),
		more:    " AND ($1::text[] IS NULL OR replace(f.path, '[]', '') = ANY ($1)) ORDER BY k.ord, f.path, f.target LIMIT $2",
		args:    []any{paths, limit},
	}, sources, func(rows pgx.Rows) error {
		some, err := pgx.CollectRows(rows, scanReference)
		found = append(found, some...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what %d records refer to: %w", len(sources), err)
	}
	slices.SortStableFunc(found, func(a, b Reference) int { return cmp.Compare(order[a.Source], order[b.Source]) })
	return found[:min(len(found), limit)], nil
}

// Group is the records of one collection that refer to something.
type Group struct {
	Collection syntax.NSID
	Sources    []record.Key // by DID and record key
	Paths      [][]string   // of each source, where it refers
	More       bool         // there are more than were asked for
}

// ReferrersByCollection returns the first records of each collection that refer to
// a record, at most limit of each. Collections without any are left out.
func (r *Reader) ReferrersByCollection(ctx context.Context, target string, collections []syntax.NSID, limit int) ([]Group, error) {
	var groups []Group
	var key record.Key
	var paths []string
	rows, err := r.pool.Query(ctx, `
		SELECT c.name, s.did, s.rkey, s.paths FROM unnest($2::text[]) WITH ORDINALITY AS c (name, ord) CROSS JOIN LATERAL (
			SELECT r.did, r.rkey, array_agg(DISTINCT r.path) AS paths FROM refs r
			WHERE r.target_hash = $4 AND r.target = $1 AND r.collection = c.name AND `+ofActive+`
			GROUP BY r.did, r.rkey ORDER BY r.did, r.rkey LIMIT $3) s
		ORDER BY c.ord, s.did, s.rkey`, planned, target, collections, limit+1, TargetHash(target))
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&key.Collection, &key.DID, &key.Rkey, &paths}, func() error {
			if len(groups) == 0 || groups[len(groups)-1].Collection != key.Collection {
				groups = append(groups, Group{Collection: key.Collection})
			}
			g := &groups[len(groups)-1]
			if len(g.Sources) == limit {
				g.More = true
				return nil
			}
			g.Sources, g.Paths = append(g.Sources, key), append(g.Paths, paths)
			paths = nil
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read who refers to %s: %w", target, ended(ctx, err))
	}
	return groups, nil
}

// Referring returns which records of some collections refer to any of some targets, in
// the order of their keys: up to limit after a given one; begin with the zero Key.
func (r *Reader) Referring(ctx context.Context, targets []string, collections []syntax.NSID, after record.Key, limit int) ([]record.Key, error) {
	hashes := make([]int64, len(targets))
	for i, target := range targets {
		hashes[i] = TargetHash(target)
	}
	found, err := collect(ctx, r.pool, scanKey, `
		SELECT DISTINCT r.collection, r.did, r.rkey FROM refs r
		WHERE r.target_hash = ANY ($7) AND r.target = ANY ($1)
			AND r.collection = ANY ($2::text[]) AND (r.collection, r.did, r.rkey) > ($3, $4, $5) AND `+ofActive+`
		ORDER BY r.collection, r.did, r.rkey LIMIT $6`,
		planned, targets, collections, after.Collection, after.DID, after.Rkey, limit, hashes)
	if err != nil {
		return nil, fmt.Errorf("read who refers to %d targets: %w", len(targets), err)
	}
	return found, nil
}

// ErrTooMuch says that the records asked for have more bytes than may be in memory
// for one question.
var ErrTooMuch = errors.New("the records are too large to be read together")

// LoadAll returns the records that are there among those asked for, of any
// collections, in one round trip; or [ErrTooMuch] beyond 16 MiB.
func (r *Reader) LoadAll(ctx context.Context, keys []record.Key) (map[record.Key]record.Record, error) {
	loaded := make(map[record.Key]record.Record, len(keys))
	bytes := 0
	err := r.together(ctx, lookup{columns: recordColumns}, keys, func(rows pgx.Rows) error {
		for rows.Next() {
			rec, err := scanRecord(rows)
			if err != nil {
				return err
			}
			if bytes += len(rec.Value); bytes > pageBytes {
				return ErrTooMuch
			}
			loaded[rec.Key] = rec
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("load %d records: %w", len(keys), err)
	}
	return loaded, nil
}

// There tells which of some records, of any collections, are there, in one round trip.
func (r *Reader) There(ctx context.Context, keys []record.Key) (map[record.Key]bool, error) {
	there := make(map[record.Key]bool, len(keys))
	err := r.together(ctx, lookup{columns: "r.collection, r.did, r.rkey"}, keys, func(rows pgx.Rows) error {
		for rows.Next() {
			key, err := scanKey(rows)
			if err != nil {
				return err
			}
			there[key] = true
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("look for %d records: %w", len(keys), err)
	}
	return there, nil
}

// lookup is what [Reader.together] asks of the records r that are there, with k.ord
// their place among the keys of their collection.
type lookup struct {
	columns, join string
	more          string // what follows the conditions, with $1, $2, … for args
	args          []any
}

// together asks for columns of records: a statement for each collection that has a
// partition, and one for all the others, sent at once.
func (r *Reader) together(ctx context.Context, l lookup, keys []record.Key, read func(pgx.Rows) error) error {
	if len(keys) == 0 {
		return nil
	}
	var foreign []record.Key
	batch := &pgx.Batch{}
	// Of a partition, the collection is a literal, and each key's in collections is NULL.
	ask := func(table, collection string, collections []string, n names) {
		q := &statement{args: slices.Clone(l.args)}
		q.write("SELECT ", l.columns, " FROM unnest(", q.arg(collections), "::text[], ", q.arg(n.dids), "::text[], ", q.arg(n.rkeys), "::text[]) WITH ORDINALITY",
			" AS k (collection, did, rkey, ord) JOIN ", table, " r ON r.collection = ", collection, " AND r.did = k.did AND r.rkey = k.rkey ", l.join,
			" WHERE ", ofActive, l.more)
		batch.Queue(q.String(), q.args...).Query(read)
	}
	for collection, n := range byCollection(keys) {
		if !r.layoutOf(ctx, collection).known {
			for i := range n.dids {
				foreign = append(foreign, record.Key{Collection: collection, DID: syntax.DID(n.dids[i]), Rkey: syntax.RecordKey(n.rkeys[i])})
			}
			continue
		}
		ask("records", quote(string(collection)), nil, *n)
	}
	if len(foreign) > 0 {
		collections, n := splitKeys(foreign)
		ask("records_foreign", "k.collection", collections, n)
	}
	return ended(ctx, r.pool.SendBatch(ctx, batch).Close())
}
