package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

// plan is a node of what EXPLAIN (ANALYZE, FORMAT JSON) says.
type plan struct {
	Node     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"` // of each loop
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Recheck  float64 `json:"Rows Removed by Index Recheck"`
	Plans    []plan  `json:"Plans"`
}

// read is how many records were read, and by which indexes.
func (p *plan) read(indexes map[string]bool) (rows float64) {
	if p.Index != "" {
		indexes[p.Index] = true
	}
	if strings.HasPrefix(p.Relation, "records_") {
		rows += (p.Rows + p.Filtered + p.Recheck) * p.Loops
	}
	for i := range p.Plans {
		rows += p.Plans[i].read(indexes)
	}
	return rows
}

// fill makes many records without the writer: 20,000 expressions of one repository
// and 10,000 of others, and 20,000 layers of which half annotate one expression.
// Half of all have the same time.
func (w *world) fill() {
	w.t.Helper()
	for _, statement := range []string{
		`INSERT INTO repos (did, updated_at) SELECT 'did:plc:r' || n, now() FROM generate_series(0, 100) n`,
		`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT n, CASE WHEN n % 2 = 0 THEN -1000 ELSE -n END, now(), 'pub.layers.expression.expression',
			'did:plc:r' || CASE WHEN n < 20000 THEN 0 ELSE n % 100 + 1 END, 'r' || n, 'cid', 'rev',
			jsonb_build_object('kind', CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'common' END, 'languages',
				CASE WHEN n >= 20000 THEN '["de", "en"]' WHEN n % 1000 = 1 THEN '["yo", "en"]' ELSE '["en"]' END::jsonb)
				|| CASE WHEN n % 2000 = 3 THEN '{"parentRef": "at://parent"}' ELSE '{}' END::jsonb, '{}'
		FROM generate_series(0, 29999) n`,
		`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT n, CASE WHEN n % 2 = 0 THEN -1000 ELSE -n END, now(), 'pub.layers.annotation.annotationLayer',
			'did:plc:r' || n % 100, 'r' || n, 'cid', 'rev',
			jsonb_build_object('expression', CASE WHEN n < 10000 THEN 'at://popular' ELSE 'at://e' || n / 5 END,
				'kind', CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'common' END,
				'tags', CASE WHEN n % 1000 = 1 THEN '["gold"]' WHEN n < 10000 THEN '["silver"]' ELSE '["gold", "silver"]' END::jsonb), '{}'
		FROM generate_series(0, 19999) n`,
		`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT n, -n, now(), 'pub.layers.corpus.corpus', 'did:plc:r' || n % 100, 'r' || n, 'cid', 'rev',
			jsonb_build_object('languages', CASE WHEN n % 500 = 0 THEN '["yo"]' ELSE '["en"]' END::jsonb), '{}'
		FROM generate_series(0, 9999) n`,
		`ANALYZE records, repos`,
	} {
		_, err := w.Pool.Exec(context.Background(), statement)
		require.NoError(w.t, err)
	}
}

// TestListsReadHardlyMoreThanTheyReturn looks at the plans of lists, not at time. A list by
// its required parameter, and by one more, is a range of an index, wherever the
// page begins and however common or rare the values are.
func TestListsReadHardlyMoreThanTheyReturn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	big := syntax.DID("did:plc:r0")
	match := func(pairs ...string) (all []store.Match) {
		for _, pair := range pairs {
			name, values, _ := strings.Cut(pair, "=")
			all = append(all, store.Match{Name: name, Values: strings.Split(values, ",")})
		}
		return all
	}
	for name, c := range map[string]struct {
		query store.Query
		index string // a part of the name of the index that has to be used
	}{
		"repository":                        {store.Query{Collection: expressions, Repo: &big}, "list_expression_repo_"},
		"whole collection":                  {store.Query{Collection: expressions}, "list_expression_recent_"},
		"repository and common kind":        {store.Query{Collection: expressions, Repo: &big, Match: match("kind=common")}, "list_expression_"},
		"repository and rare kind":          {store.Query{Collection: expressions, Repo: &big, Match: match("kind=rare")}, "kind"},
		"repository and either kind":        {store.Query{Collection: expressions, Repo: &big, Match: match("kind=rare,common")}, "kind"},
		"repository and no such kind":       {store.Query{Collection: expressions, Repo: &big, Match: match("kind=none")}, "kind"},
		"repository and parent":             {store.Query{Collection: expressions, Repo: &big, Match: match("parentRef=at://parent")}, "parentref"},
		"repository and rare language":      {store.Query{Collection: expressions, Repo: &big, Match: match("languages=yo")}, "languages"},
		"repository and common language":    {store.Query{Collection: expressions, Repo: &big, Match: match("languages=en")}, "list_expression_repo_"},
		"repository, language of others":    {store.Query{Collection: expressions, Repo: &big, Match: match("languages=de")}, "languages"},
		"repository, languages":             {store.Query{Collection: expressions, Repo: &big, Match: match("languages=de,yo,xx")}, "languages"},
		"popular expression":                {store.Query{Collection: layers, Match: match("expression=at://popular")}, "expression"},
		"other expression":                  {store.Query{Collection: layers, Match: match("expression=at://e2500")}, "expression"},
		"two expressions":                   {store.Query{Collection: layers, Match: match("expression=at://popular,at://e2500")}, "expression"},
		"popular expression and rare kind":  {store.Query{Collection: layers, Match: match("expression=at://popular", "kind=rare")}, "expression_kind"},
		"popular expression and rare tag":   {store.Query{Collection: layers, Match: match("expression=at://popular", "tags=gold")}, "expression_tags"},
		"popular expression and common tag": {store.Query{Collection: layers, Match: match("expression=at://popular", "tags=silver")}, "expression"},
		"array required, rare":              {store.Query{Collection: corpora, Match: match("languages=yo")}, "languages"},
		"array required, common":            {store.Query{Collection: corpora, Match: match("languages=en")}, "list_corpus_recent_"},
	} {
		for _, deep := range []bool{false, true} {
			query := c.query
			query.Limit = 50
			if deep {
				query.After = w.middle(query)
			}
			for _, generic := range []bool{false, true} {
				if generic && strings.Contains(c.index, "languages") || generic && strings.Contains(name, "tag") || generic && strings.Contains(name, "language") || generic && strings.Contains(name, "array") {
					continue // planned each time
				}
				p := w.explain(query, generic)
				indexes := map[string]bool{}
				read := p.read(indexes)
				what := fmt.Sprintf("%s, deep %v, generic %v: %v", name, deep, generic, indexes)
				require.LessOrEqual(t, read, 2*51.0+10, what)
				used := ""
				for index := range indexes {
					used += index + " "
				}
				require.Contains(t, used, c.index, what)
			}
		}
	}
}

// middle is a position in the middle of a list, among many records of one time if possible.
func (w *world) middle(query store.Query) *store.Position {
	w.t.Helper()
	query.Limit = 5000
	page, err := w.reader.List(context.Background(), query)
	require.NoError(w.t, err)
	if len(page.Records) == 0 {
		return nil
	}
	query.Limit = len(page.Records)/2 + 1
	page, err = w.reader.List(context.Background(), query)
	require.NoError(w.t, err)
	return page.Next
}

// explain runs a list's statement and returns its plan: one for its parameters, or the
// one that a prepared statement gets for any.
func (w *world) explain(query store.Query, generic bool) plan {
	w.t.Helper()
	ctx := context.Background()
	sql, args, err := w.reader.ListSQL(ctx, query)
	require.NoError(w.t, err)
	conn, err := w.Pool.Acquire(ctx)
	require.NoError(w.t, err)
	defer conn.Release()
	statement := "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + sql
	if generic {
		literals := make([]string, len(args))
		for i, arg := range args {
			literals[i] = "'" + strings.ReplaceAll(fmt.Sprint(arg), "'", "''") + "'"
		}
		_, err = conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan; PREPARE list AS "+sql)
		require.NoError(w.t, err)
		defer conn.Exec(ctx, "RESET plan_cache_mode; DEALLOCATE list")
		statement, args = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE list", nil
		if len(literals) > 0 {
			statement += " (" + strings.Join(literals, ", ") + ")"
		}
	}
	var encoded []byte
	row := conn.QueryRow(ctx, statement, append([]any{pgx.QueryExecModeExec}, args...)...)
	require.NoError(w.t, row.Scan(&encoded), statement)
	var explained []struct{ Plan plan }
	require.NoError(w.t, json.Unmarshal(encoded, &explained))
	return explained[0].Plan
}
