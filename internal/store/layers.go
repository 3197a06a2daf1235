package store

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// AnnotationQuery asks for annotations of one expression. Empty filters match all.
type AnnotationQuery struct {
	Layers     syntax.NSID // the collection of annotation layers
	Expression syntax.ATURI
	Kind       string // of the layer
	Subkind    string // of the layer
	Label      string
	AnchorKind string
	Confidence int // at least; 0 also takes annotations without one
	After      *AnnotationPosition
	Limit      int
}

// AnnotationPosition is the place of an annotation: layers as lists have them, newest
// first, and each one's annotations in its order.
type AnnotationPosition struct {
	Layer   Position
	Ordinal int
}

// FoundAnnotation is an annotation with what its layer says of it.
type FoundAnnotation struct {
	record.Annotation
	Kind, Subkind string // of the layer; empty where it has none
	At            AnnotationPosition
}

// AnnotationsOf returns a page of an expression's annotations, from the read table
// that follows the layers; more tells whether another follows.
func (r *Reader) AnnotationsOf(ctx context.Context, query AnnotationQuery) (page []FoundAnnotation, more bool, err error) {
	q := &statement{mode: planned}
	q.write(`SELECT r.collection, r.did, r.rkey, r.sort_key, coalesce(r.filter ->> 'kind', ''), coalesce(r.filter ->> 'subkind', ''),
			a.ordinal, a.uuid, a.label, a.value, a.text, a.anchor_kind, a.byte_start, a.byte_end, a.token_index, a.confidence
		FROM records r JOIN annotations a ON a.collection = r.collection AND a.did = r.did AND a.rkey = r.rkey
		WHERE r.collection = `, quote(string(query.Layers)), " AND ", scalar("expression"), " = ", q.arg(record.FilterTerm(string(query.Expression))))
	for _, f := range []struct{ column, value string }{
		{scalar("kind"), query.Kind}, {scalar("subkind"), query.Subkind}, {"a.label", query.Label}, {"a.anchor_kind", query.AnchorKind},
	} {
		if f.value != "" {
			q.write(" AND ", f.column, " = ", q.arg(f.value))
		}
	}
	if query.Confidence > 0 {
		q.write(" AND a.confidence >= ", q.arg(query.Confidence))
	}
	if at := query.After; at != nil {
		s, d, k := q.arg(at.Layer.sortKey()), q.arg(at.Layer.DID), q.arg(at.Layer.Rkey)
		q.write(" AND (r.sort_key, r.did, r.rkey) >= (", s, ", ", d, ", ", k, ") AND (r.sort_key, r.did, r.rkey, a.ordinal) > (", s, ", ", d, ", ", k, ", ", q.arg(at.Ordinal), ")")
	}
	q.write(" AND ", ofActive, " ORDER BY r.sort_key, r.did, r.rkey, a.ordinal LIMIT ", q.arg(query.Limit+1))
	page, err = collect(ctx, r.pool, scanFound, q.String(), q.arguments()...)
	if err != nil {
		return nil, false, fmt.Errorf("read the annotations of %s: %w", query.Expression, err)
	}
	if len(page) > query.Limit {
		return page[:query.Limit], true, nil
	}
	return page, false, nil
}

func scanFound(row pgx.CollectableRow) (f FoundAnnotation, err error) {
	var sort int64
	err = row.Scan(&f.Layer.Collection, &f.Layer.DID, &f.Layer.Rkey, &sort, &f.Kind, &f.Subkind,
		&f.Ordinal, &f.UUID, &f.Label, &f.Value, &f.Text, &f.AnchorKind, &f.ByteStart, &f.ByteEnd, &f.TokenIndex, &f.Confidence)
	f.At = AnnotationPosition{Layer: Position{SortAt: time.UnixMicro(-sort).UTC(), DID: f.Layer.DID, Rkey: f.Layer.Rkey}, Ordinal: f.Ordinal}
	return f, err
}
