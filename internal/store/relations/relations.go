// Package relations keeps the graph in PostgreSQL, and answers questions about it: for
// deployments without Neo4j, and for times when that is away. It is a projection like
// the graph in Neo4j, with the same edges.
package relations

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// Record is what one record contributes: its node, and the edges it states.
type Record struct {
	Key     record.Key
	Version int64
	Deleted bool // the record is gone, and so are its edges
	Label   string
	Edges   []traversal.Edge // Stated and Place are not looked at
}

// Store writes the relations of records, and is a [traversal.Source] of them.
type Store struct {
	pool *pgxpool.Pool
}

// New makes a store. A pool that may not write is enough for questions.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Ping asks PostgreSQL whether it answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping PostgreSQL: %w", store.Ended(ctx, err))
	}
	return nil
}

// Clear forgets everything: for when nobody keeps the relations up to date any more.
func (s *Store) Clear(ctx context.Context) error {
	var any bool
	err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM relation_records)").Scan(&any)
	if err == nil && any { // emptying takes a lock that readers notice
		_, err = s.pool.Exec(ctx, "TRUNCATE relations, relation_records")
	}
	if err != nil {
		return fmt.Errorf("clear the relations: %w", store.Ended(ctx, err))
	}
	return nil
}

// Replace puts the edges of records in the place of those they had. A record of which
// a newer version has been written is passed over. Of a deleted account's record
// nothing stays, however late its writer comes. Each key may be there once. Where
// PostgreSQL refuses what records hold ([store.ErrRejected]), nothing is written.
func (s *Store) Replace(ctx context.Context, records []Record) error {
	if len(records) == 0 {
		return nil
	}
	// Two workers that meet the same records lock them in the same order.
	records = slices.SortedFunc(slices.Values(records), func(a, b Record) int { return compareKeys(a.Key, b.Key) })
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		accepted, err := accept(ctx, tx, records)
		if err != nil {
			return err
		}
		kept, err := dropDeleted(ctx, tx, accepted)
		if err != nil {
			return err
		}
		return copyEdges(ctx, tx, kept)
	})
	if err != nil {
		return fmt.Errorf("replace the relations of %d records: %w", len(records), store.Rejected(store.Ended(ctx, err)))
	}
	return nil
}

func compareKeys(a, b record.Key) int {
	return cmp.Or(strings.Compare(string(a.DID), string(b.DID)), strings.Compare(string(a.Collection), string(b.Collection)),
		strings.Compare(string(a.Rkey), string(b.Rkey)))
}

// keys are the parts of records' keys, as parameters of a statement.
type keys struct{ dids, collections, rkeys []string }

func (k *keys) add(key record.Key) {
	k.dids, k.collections, k.rkeys = append(k.dids, string(key.DID)), append(k.collections, string(key.Collection)), append(k.rkeys, string(key.Rkey))
}

func keysOf(records []Record) (k keys) {
	for i := range records {
		k.add(records[i].Key)
	}
	return k
}

// once has a statement planned for its parameters: how many edges a node has differs
// too much for one plan.
const once = pgx.QueryExecModeDescribeExec

// accept locks the records, removes the edges of those that are to be replaced, and
// returns these.
func accept(ctx context.Context, tx pgx.Tx, records []Record) ([]Record, error) {
	k := keysOf(records)
	var versions []int64
	var deleted []bool
	var labels []string
	for i := range records {
		versions, deleted = append(versions, records[i].Version), append(deleted, records[i].Deleted)
		labels = append(labels, withoutNUL(records[i].Label))
	}
	accepted, err := collectKeys(ctx, tx, `
		INSERT INTO relation_records AS r (did, collection, rkey, version, deleted, label)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::text[])
		ON CONFLICT (did, collection, rkey) DO UPDATE SET version = excluded.version, deleted = excluded.deleted, label = excluded.label
			WHERE r.version <= excluded.version
		RETURNING r.did, r.collection, r.rkey`, once, k.dids, k.collections, k.rkeys, versions, deleted, labels)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(records, func(r Record) bool { return !accepted[r.Key] })
	k = keysOf(kept)
	_, err = tx.Exec(ctx, `
		DELETE FROM relations e USING unnest($1::text[], $2::text[], $3::text[]) AS k (did, collection, rkey)
		WHERE e.did = k.did AND e.collection = k.collection AND e.rkey = k.rkey`, once, k.dids, k.collections, k.rkeys)
	return kept, err
}

// dropDeleted removes the records of deleted accounts, and returns the others. It is a
// statement of its own, begun when the records are locked: whoever wrote one before it
// saw the account go has written it before the account's records go, so that the
// removal of these comes behind, and waits.
func dropDeleted(ctx context.Context, tx pgx.Tx, records []Record) ([]Record, error) {
	k := keysOf(records)
	dropped, err := collectKeys(ctx, tx, `
		DELETE FROM relation_records r USING unnest($1::text[], $2::text[], $3::text[]) AS k (did, collection, rkey)
		WHERE r.did = k.did AND r.collection = k.collection AND r.rkey = k.rkey
			AND EXISTS (SELECT FROM repos WHERE repos.did = k.did AND NOT active AND status = 'deleted')
		RETURNING r.did, r.collection, r.rkey`, once, k.dids, k.collections, k.rkeys)
	if err != nil {
		return nil, fmt.Errorf("remove the relations of deleted accounts: %w", err)
	}
	return slices.DeleteFunc(records, func(r Record) bool { return dropped[r.Key] }), nil
}

func collectKeys(ctx context.Context, tx pgx.Tx, sql string, args ...any) (map[record.Key]bool, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found := map[record.Key]bool{}
	var key record.Key
	_, err = pgx.ForEachRow(rows, []any{&key.DID, &key.Collection, &key.Rkey}, func() error { found[key] = true; return nil })
	return found, err
}

func copyEdges(ctx context.Context, tx pgx.Tx, records []Record) error {
	var rows [][]any
	for i := range records {
		if records[i].Deleted {
			continue
		}
		for _, e := range records[i].Edges {
			row, err := rowOf(records[i].Key, e)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	columns := []string{"did", "collection", "rkey", "type", "source", "target", "long_source", "long_target", "identifier", "properties"}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"relations"}, columns, pgx.CopyFromRows(rows)); err != nil {
		return fmt.Errorf("add %d relations: %w", len(rows), err)
	}
	return nil
}

func rowOf(by record.Key, e traversal.Edge) ([]any, error) {
	var properties, identifier, longSource, longTarget *string
	if len(e.Properties) > 0 {
		encoded, err := json.Marshal(e.Properties)
		if err != nil {
			return nil, fmt.Errorf("encode the properties of an edge of %s: %w", by, err)
		}
		text := string(encoded)
		properties = &text
	}
	if e.Type == traversal.KnowledgeRef {
		text := withoutNUL(e.To.Identifier)
		identifier = &text
	}
	source, target := key(e.From), key(e.To)
	if name := e.From.Name(); name != source {
		longSource = &name
	}
	if name := e.To.Name(); name != target {
		longTarget = &name
	}
	return []any{string(by.DID), string(by.Collection), string(by.Rkey), string(e.Type), source, target, longSource, longTarget, identifier, properties}, nil
}

// maxKey is the longest name in bytes that is kept as it is: an index key has two,
// and at most 2,704 bytes.
const maxKey = 1000

// key is what a node is known by.
func key(id traversal.ID) string {
	name := id.Name()
	if len(name) <= maxKey {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// withoutNUL has U+FFFD for U+0000, which a text cannot hold.
func withoutNUL(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// State is what is kept of a record.
type State struct {
	Key     record.Key
	Version int64
}

// Scan walks through the records that have relations or could have, in the order of
// their DIDs, collections and record keys: up to limit after a given one; begin with
// the zero Key. Fewer than limit are the last.
func (s *Store) Scan(ctx context.Context, after record.Key, limit int) ([]State, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT did, collection, rkey, version FROM relation_records
		WHERE (did, collection, rkey) > ($1, $2, $3) AND NOT deleted ORDER BY did, collection, rkey LIMIT $4`,
		string(after.DID), string(after.Collection), string(after.Rkey), limit)
	if err != nil {
		return nil, fmt.Errorf("scan the relations: %w", store.Ended(ctx, err))
	}
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (st State, err error) {
		err = row.Scan(&st.Key.DID, &st.Key.Collection, &st.Key.Rkey, &st.Version)
		return st, err
	})
	if err != nil {
		return nil, fmt.Errorf("scan the relations: %w", store.Ended(ctx, err))
	}
	return states, nil
}
