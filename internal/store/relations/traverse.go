package relations

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// Begin opens a snapshot for one question.
func (s *Store) Begin(ctx context.Context) (traversal.View, error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin to read the relations: %w", store.Ended(ctx, err))
	}
	// All that is asked for is found by an index, in the index's order. What pays for
	// large scans can only do harm: a bitmap collects every edge of a node first.
	const settings = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL jit = off"
	if _, err := tx.Exec(ctx, settings, pgx.QueryExecModeSimpleProtocol); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("begin to read the relations: %w", store.Ended(ctx, err))
	}
	return &view{tx: tx}, nil
}

type view struct {
	tx pgx.Tx
}

const endTime = 2 * time.Second // to close a transaction whose context may be over

// End closes the snapshot, which is never stale.
func (v *view) End(ctx context.Context) (stale bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_ = v.tx.Rollback(ctx) // nothing was written
	return false, nil
}

// steps gives edges e, found from the node near to the node far, their form. Whether
// a record is there is looked up one by one: OFFSET 0 keeps the planner from reading
// all that are there instead.
const steps = `
	SELECT e.place, e.type, e.out, e.near, e.far, e.did, e.collection, e.rkey, e.properties,
		e.far LIKE 'at://did:%/%/%' AND NOT EXISTS (SELECT FROM relation_records r WHERE r.did = split_part(e.far, '/', 3)
			AND r.collection = split_part(e.far, '/', 4) AND r.rkey = split_part(e.far, '/', 5) AND NOT r.deleted OFFSET 0)
	FROM `

// ends are the columns of one direction.
func ends(in bool) (near, far, columns string) {
	near, far = "source", "target"
	if in {
		near, far = far, near
	}
	return near, far, fmt.Sprintf("place, type, %t AS out, coalesce(long_%[2]s, %[2]s) AS near, coalesce(long_%[3]s, %[3]s) AS far, did, collection, rkey, properties",
		!in, near, far)
}

// ofCollection is the condition that the far end is a record of a collection.
func ofCollection(far string, collection syntax.NSID, parameter int) string {
	if collection == "" {
		return fmt.Sprintf(" AND $%d::text IS NOT NULL", parameter) // so that it is there
	}
	return fmt.Sprintf(" AND coalesce(long_%[1]s, %[1]s) LIKE 'at://did:%%' AND split_part(coalesce(long_%[1]s, %[1]s), '/', 4) = $%[2]d", far, parameter)
}

// Incident reads a node's edges in one direction, in order: as many of each type as
// are asked for.
func (v *view) Incident(ctx context.Context, q traversal.Incident) ([]traversal.Step, error) {
	near, far, columns := ends(q.In)
	loops := ""
	if q.In && !q.Loops {
		loops = " AND source <> target"
	}
	after := traversal.Position{Place: -1}
	if q.After != nil {
		after = *q.After
	}
	sql := fmt.Sprintf(`%s (
		SELECT e.* FROM unnest($2::text[]) AS t (name) CROSS JOIN LATERAL (
			SELECT %s, %s AS ordered FROM relations r WHERE %s = $1 AND r.type = t.name AND (r.type, r.%s, r.place) > ($3, $4, $5)%s%s
			ORDER BY r.type, r.%[5]s, r.place LIMIT $6) e
		ORDER BY e.type, e.ordered, e.place LIMIT $6) e ORDER BY e.type, e.ordered, e.place`,
		steps, columns, far, near, far, loops, ofCollection(far, q.Collection, 7))
	return v.follow(ctx, sql, key(q.Node), texts(q.Types), string(after.Type), farKey(after.Far), after.Place, q.Limit, string(q.Collection))
}

func farKey(name string) string {
	if name == "" {
		return ""
	}
	return key(traversal.Named(name))
}

// Expand reads edges of several nodes.
func (v *view) Expand(ctx context.Context, nodes []traversal.ID, f traversal.Filter, perNode, limit int) ([]traversal.Step, error) {
	names := make([]string, len(nodes))
	for i, id := range nodes {
		names[i] = key(id)
	}
	var parts []string
	for _, in := range []bool{false, true} {
		if in && f.Direction == traversal.Out || !in && f.Direction == traversal.In {
			continue
		}
		near, far, columns := ends(in)
		loops := ""
		if in && f.Direction == traversal.Both {
			loops = " AND source <> target"
		}
		parts = append(parts, fmt.Sprintf("(SELECT %s FROM relations WHERE %s = k.name AND type = ANY ($2::text[])%s%s LIMIT $3)",
			columns, near, loops, ofCollection(far, f.Collection, 5)))
	}
	sql := fmt.Sprintf(`%s (
		SELECT e.* FROM unnest($1::text[]) AS k (name) CROSS JOIN LATERAL (SELECT * FROM (%s) u LIMIT $3) e LIMIT $4) e`,
		steps, strings.Join(parts, " UNION ALL "))
	return v.follow(ctx, sql, names, texts(f.Types), perNode, limit, string(f.Collection))
}

func texts(types []traversal.EdgeType) []string {
	out := make([]string, len(types))
	for i, t := range types {
		out[i] = string(t)
	}
	return out
}

// follow runs a query of [steps].
func (v *view) follow(ctx context.Context, sql string, args ...any) ([]traversal.Step, error) {
	rows, err := v.tx.Query(ctx, sql, append([]any{once}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("follow relations: %w", store.Ended(ctx, err))
	}
	found, err := pgx.CollectRows(rows, scanStep)
	if err != nil {
		return nil, fmt.Errorf("follow relations: %w", store.Ended(ctx, err))
	}
	return found, nil
}

func scanStep(row pgx.CollectableRow) (s traversal.Step, err error) {
	var out bool
	var near, far, did, collection, rkey string
	var properties []byte
	if err := row.Scan(&s.Place, &s.Type, &out, &near, &far, &did, &collection, &rkey, &properties, &s.Dangling); err != nil {
		return s, err
	}
	s.Via, s.Stated = traversal.Named(near), "at://"+did+"/"+collection+"/"+rkey
	s.From, s.To = s.Via, traversal.Named(far)
	if !out {
		s.From, s.To = s.To, s.From
	}
	s.Properties, err = decode(properties)
	return s, err
}

// decode gives properties the types that they have in Neo4j.
func decode(encoded []byte) (map[string]any, error) {
	out := map[string]any{}
	if encoded == nil {
		return out, nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	decoder.UseNumber()
	if err := decoder.Decode(&out); err != nil {
		return nil, fmt.Errorf("decode an edge's properties: %w", err)
	}
	for name, value := range out {
		number, ok := value.(json.Number)
		if !ok {
			continue
		}
		if whole, err := number.Int64(); err == nil {
			out[name] = whole
		} else if out[name], err = number.Float64(); err != nil {
			return nil, fmt.Errorf("decode an edge's %s: %w", name, err)
		}
	}
	return out, nil
}

// Knowledge finds the entries with an identifier, each by one look into the index,
// however much is grounded to them.
func (v *view) Knowledge(ctx context.Context, identifier string, limit int) ([]traversal.ID, error) {
	rows, err := v.tx.Query(ctx, `
		WITH RECURSIVE entries (target, name) AS (
			(SELECT target, coalesce(long_target, target) FROM relations
				WHERE hashtextextended(identifier, 0) = hashtextextended($1::text, 0) AND identifier = $1 ORDER BY target LIMIT 1)
			UNION ALL
			SELECT n.* FROM entries CROSS JOIN LATERAL (
				SELECT r.target, coalesce(r.long_target, r.target) FROM relations r
				WHERE hashtextextended(r.identifier, 0) = hashtextextended($1::text, 0) AND r.identifier = $1 AND r.target > entries.target
				ORDER BY r.target LIMIT 1) n)
		SELECT name FROM entries LIMIT $2`, once, withoutNUL(identifier), limit)
	if err != nil {
		return nil, fmt.Errorf("look for %q in the knowledge bases: %w", identifier, store.Ended(ctx, err))
	}
	ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (traversal.ID, error) {
		var name string
		err := row.Scan(&name)
		return traversal.Named(name), err
	})
	if err != nil {
		return nil, fmt.Errorf("look for %q in the knowledge bases: %w", identifier, store.Ended(ctx, err))
	}
	return ids, nil
}

// Nodes reads what is known of records.
func (v *view) Nodes(ctx context.Context, ids []traversal.ID) (map[traversal.ID]traversal.Node, error) {
	var k keys
	for _, id := range ids {
		if id.Kind == traversal.Record {
			parts := strings.Split(id.URI, "/")
			k.dids, k.collections, k.rkeys = append(k.dids, parts[2]), append(k.collections, parts[3]), append(k.rkeys, parts[4])
		}
	}
	nodes := make(map[traversal.ID]traversal.Node, len(k.dids))
	if len(k.dids) == 0 {
		return nodes, nil
	}
	rows, err := v.tx.Query(ctx, `
		SELECT r.did, r.collection, r.rkey, r.label FROM unnest($1::text[], $2::text[], $3::text[]) AS k (did, collection, rkey)
		JOIN relation_records r ON r.did = k.did AND r.collection = k.collection AND r.rkey = k.rkey WHERE NOT r.deleted`,
		once, k.dids, k.collections, k.rkeys)
	if err != nil {
		return nil, fmt.Errorf("read %d nodes: %w", len(k.dids), store.Ended(ctx, err))
	}
	var did, collection, rkey, label string
	_, err = pgx.ForEachRow(rows, []any{&did, &collection, &rkey, &label}, func() error {
		id := traversal.ID{Kind: traversal.Record, URI: "at://" + did + "/" + collection + "/" + rkey}
		nodes[id] = traversal.Node{ID: id, Label: label}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %d nodes: %w", len(k.dids), store.Ended(ctx, err))
	}
	return nodes, nil
}

// Filling tells whether the relations are being filled, as of the snapshot.
func (v *view) Filling(ctx context.Context) (bool, error) {
	return store.Filling(ctx, v.tx, record.Relations)
}

// Inactive tells which accounts are not to be seen, as of the snapshot.
func (v *view) Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error) {
	rows, err := v.tx.Query(ctx, "SELECT did FROM repos WHERE did = ANY ($1::text[]) AND NOT active", once, dids)
	if err != nil {
		return nil, fmt.Errorf("read which of %d accounts are inactive: %w", len(dids), store.Ended(ctx, err))
	}
	inactive := map[syntax.DID]bool{}
	var did syntax.DID
	if _, err := pgx.ForEachRow(rows, []any{&did}, func() error { inactive[did] = true; return nil }); err != nil {
		return nil, fmt.Errorf("read which of %d accounts are inactive: %w", len(dids), store.Ended(ctx, err))
	}
	return inactive, nil
}
