package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Tables writes the read tables that follow records inside PostgreSQL.
type Tables struct {
	pool *pgxpool.Pool
}

// NewTables takes a pool that may write.
func NewTables(pool *pgxpool.Pool) *Tables { return &Tables{pool: pool} }

// Layer is an annotation layer with all its annotations. Their Layer is not looked
// at, and neither is their order.
type Layer struct {
	Key     record.Key
	Version int64
	Deleted bool // the layer is gone, and so are its annotations
	Rows    []record.Annotation
}

// ReplaceAnnotations puts the annotations of layers in the place of those they had.
// A layer of which a newer version has been written is passed over. Of a deleted
// account's layer nothing stays, however late its writer comes. Each key may be
// there once.
func (t *Tables) ReplaceAnnotations(ctx context.Context, layers []Layer) error {
	if len(layers) == 0 {
		return nil
	}
	// Two workers that meet the same layers lock them in the same order.
	layers = slices.SortedFunc(slices.Values(layers), func(a, b Layer) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		accepted, err := acceptLayers(ctx, tx, layers)
		if err != nil {
			return err
		}
		kept, err := dropDeleted(ctx, tx, accepted)
		if err != nil {
			return err
		}
		return copyAnnotations(ctx, tx, kept)
	})
	if err != nil {
		return fmt.Errorf("replace the annotations of %d layers: %w", len(layers), rejected(ended(ctx, err)))
	}
	return nil
}

// acceptLayers locks the layers, removes the annotations of those that are to be
// replaced, and returns these.
func acceptLayers(ctx context.Context, tx pgx.Tx, layers []Layer) ([]Layer, error) {
	var n names
	var collections []string
	var versions []int64
	var counts []int
	var deleted []bool
	for _, l := range layers {
		n.add(l.Key)
		collections, versions = append(collections, string(l.Key.Collection)), append(versions, l.Version)
		counts, deleted = append(counts, len(l.Rows)), append(deleted, l.Deleted)
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO annotation_layers AS l (collection, did, rkey, version, count, deleted)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::integer[], $6::boolean[])
		ON CONFLICT (collection, did, rkey) DO UPDATE SET version = excluded.version, count = excluded.count, deleted = excluded.deleted
			WHERE l.version <= excluded.version
		RETURNING l.collection, l.did, l.rkey`, collections, n.dids, n.rkeys, versions, counts, deleted)
	if err != nil {
		return nil, err
	}
	accepted := map[record.Key]bool{}
	key := record.Key{}
	if _, err := pgx.ForEachRow(rows, []any{&key.Collection, &key.DID, &key.Rkey}, func() error { accepted[key] = true; return nil }); err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `
		DELETE FROM annotations a USING unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS k (collection, did, rkey, accepted)
		WHERE k.accepted AND a.collection = k.collection AND a.did = k.did AND a.rkey = k.rkey`,
		planned, collections, n.dids, n.rkeys, flags(layers, accepted))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(layers, func(l Layer) bool { return !accepted[l.Key] }), nil
}

// dropDeleted removes the layers of deleted accounts, and returns the others. It is
// a statement of its own, begun when the layers are locked: whoever wrote a layer
// before it saw the account go has written it before the account's records go, so
// that the removal of these comes behind, and waits.
func dropDeleted(ctx context.Context, tx pgx.Tx, layers []Layer) ([]Layer, error) {
	keys := make([]record.Key, len(layers))
	for i := range layers {
		keys[i] = layers[i].Key
	}
	collections, n := splitKeys(keys)
	dropped, err := collect(ctx, tx, scanKey, `
		DELETE FROM annotation_layers l USING unnest($1::text[], $2::text[], $3::text[]) AS k (collection, did, rkey)
		WHERE l.collection = k.collection AND l.did = k.did AND l.rkey = k.rkey
			AND EXISTS (SELECT FROM repos WHERE repos.did = k.did AND NOT active AND status = '`+StatusDeleted+`')
		RETURNING l.collection, l.did, l.rkey`, planned, collections, n.dids, n.rkeys)
	if err != nil {
		return nil, fmt.Errorf("remove the layers of deleted accounts: %w", err)
	}
	return slices.DeleteFunc(layers, func(l Layer) bool { return slices.Contains(dropped, l.Key) }), nil
}

func flags(layers []Layer, accepted map[record.Key]bool) []bool {
	list := make([]bool, len(layers))
	for i, l := range layers {
		list[i] = accepted[l.Key]
	}
	return list
}

func copyAnnotations(ctx context.Context, tx pgx.Tx, layers []Layer) error {
	type annotation struct {
		key record.Key
		*record.Annotation
	}
	var all []annotation
	for _, l := range layers {
		for i := range l.Rows {
			all = append(all, annotation{l.Key, &l.Rows[i]})
		}
	}
	columns := []string{
		"collection", "did", "rkey", "ordinal", "uuid", "label", "value", "text", "anchor_kind", "byte_start", "byte_end", "token_index", "confidence",
	}
	return copyTo(ctx, tx, "annotations", columns, len(all), func(i int, values []any) []any {
		a := all[i]
		return append(values, string(a.key.Collection), string(a.key.DID), string(a.key.Rkey), a.Ordinal, withoutNUL(a.UUID), withoutNUL(a.Label),
			withoutNUL(a.Value), withoutNUL(a.Text), withoutNUL(a.AnchorKind), a.ByteStart, a.ByteEnd, a.TokenIndex, a.Confidence)
	})
}

// LayerState is what the annotations table holds of a layer.
type LayerState struct {
	Key     record.Key
	Version int64
	Count   int // of annotations
}

// ScanLayers walks through the layers that the annotations table holds, in the order
// of their collections, DIDs and record keys: up to limit after a given one; begin
// with the zero Key. Fewer than limit are the last.
func (t *Tables) ScanLayers(ctx context.Context, after record.Key, limit int) ([]LayerState, error) {
	scan := func(row pgx.CollectableRow) (s LayerState, err error) {
		err = row.Scan(&s.Key.Collection, &s.Key.DID, &s.Key.Rkey, &s.Version, &s.Count)
		return s, err
	}
	states, err := collect(ctx, t.pool, scan, `
		SELECT collection, did, rkey, version, count FROM annotation_layers
		WHERE (collection, did, rkey) > ($1, $2, $3) AND NOT deleted ORDER BY collection, did, rkey LIMIT $4`,
		after.Collection, after.DID, after.Rkey, limit)
	if err != nil {
		return nil, fmt.Errorf("scan the annotation layers: %w", err)
	}
	return states, nil
}

// Annotations returns those of a layer, in their order.
func (r *Reader) Annotations(ctx context.Context, layer record.Key) ([]record.Annotation, error) {
	scan := func(row pgx.CollectableRow) (record.Annotation, error) {
		a := record.Annotation{Layer: layer}
		err := row.Scan(&a.Ordinal, &a.UUID, &a.Label, &a.Value, &a.Text, &a.AnchorKind, &a.ByteStart, &a.ByteEnd, &a.TokenIndex, &a.Confidence)
		return a, err
	}
	found, err := collect(ctx, r.pool, scan, `
		SELECT ordinal, uuid, label, value, text, anchor_kind, byte_start, byte_end, token_index, confidence
		FROM annotations r WHERE collection = $1 AND did = $2 AND rkey = $3 AND `+ofActive+` ORDER BY ordinal`,
		layer.Collection, layer.DID, layer.Rkey)
	if err != nil {
		return nil, fmt.Errorf("read the annotations of %s: %w", layer, err)
	}
	return found, nil
}
