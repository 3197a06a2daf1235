package fulltext

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/query"
)

// maxFaceted is how many hits are counted by their values: facets of more are of that many.
const maxFaceted = 100_000

// count fills in what the first page says of all hits.
func count(ctx context.Context, tx pgx.Tx, plan *query.Plan, answer *query.Answer) error {
	st := matching(plan)
	var n int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+st.some("1", query.MaxCounted+1)+" s", st.args...).Scan(&n); err != nil {
		return fmt.Errorf("count hits: %w", err)
	}
	answer.Total = query.Total{Value: min(n, query.MaxCounted), Exact: n <= query.MaxCounted}
	if len(plan.Facets) == 0 {
		return nil
	}
	answer.Facets = map[string][]query.Count{}
	for _, f := range plan.Facets {
		counts, err := facet(ctx, tx, plan, f)
		if err != nil {
			return fmt.Errorf("count hits by %s: %w", f.Name, err)
		}
		answer.Facets[f.Name] = counts
	}
	return nil
}

func facet(ctx context.Context, tx pgx.Tx, plan *query.Plan, f query.Facet) ([]query.Count, error) {
	st := matching(plan)
	var sql string
	switch f.Name {
	case query.TypeField:
		sql = "SELECT s.collection AS v, count(*) AS n FROM " + st.some("d.collection", maxFaceted) + " s GROUP BY 1"
	case query.LabelFacet:
		sql = "SELECT a.label AS v, count(*) AS n FROM " + st.some("d.collection, d.did, d.rkey", maxFaceted) +
			" s JOIN annotations a USING (collection, did, rkey) WHERE a.label <> ''" + st.annotation() + " GROUP BY 1"
	default:
		prefix := st.arg(term(f.Name, ""))
		sql = "SELECT substr(t, length(" + prefix + "::text) + 1) AS v, count(*) AS n FROM " + st.some("d.terms", maxFaceted) +
			" s, unnest(s.terms) t WHERE starts_with(t, " + prefix + ") GROUP BY 1"
	}
	rows, err := tx.Query(ctx, sql+" ORDER BY n DESC, 1 LIMIT "+st.arg(query.MaxBuckets), st.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c query.Count, err error) {
		err = row.Scan(&c.Value, &c.Count)
		return c, err
	})
}

// annotations adds those that match to the hits of a page.
func annotations(ctx context.Context, tx pgx.Tx, plan *query.Plan, places []place, hits []query.Hit) error {
	st := &statement{plan: plan}
	collections, dids, rkeys := keys(places)
	from := strings.Join([]string{st.arg(collections) + "::text[]", st.arg(dids) + "::text[]", st.arg(rkeys) + "::text[]"}, ", ")
	rows, err := tx.Query(ctx, `
		SELECT k.i, m.total, m.ordinal, m.uuid, m.label, m.value, m.text, m.anchor_kind, m.byte_start, m.byte_end, m.token_index, m.confidence
		FROM unnest(`+from+`) WITH ORDINALITY AS k (collection, did, rkey, i)
		CROSS JOIN LATERAL (SELECT a.*, count(*) OVER () AS total FROM annotations a
			WHERE a.collection = k.collection AND a.did = k.did AND a.rkey = k.rkey`+st.annotation()+`
			ORDER BY a.ordinal LIMIT `+st.arg(query.MaxMatching)+`) m
		ORDER BY k.i, m.ordinal`, st.args...)
	if err != nil {
		return fmt.Errorf("read the annotations that match: %w", err)
	}
	var a query.Annotation
	var i, total int64
	into := []any{&i, &total, &a.Ordinal, &a.UUID, &a.Label, &a.Value, &a.Text, &a.Anchor, &a.ByteStart, &a.ByteEnd, &a.TokenIndex, &a.Confidence}
	_, err = pgx.ForEachRow(rows, into, func() error {
		hit := &hits[i-1]
		hit.Matching, hit.Annotations = total, append(hit.Annotations, a)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the annotations that match: %w", err)
	}
	return nil
}
