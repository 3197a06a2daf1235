// Package fulltext searches inside PostgreSQL: for deployments without a search
// server, and for those whose server is away. It keeps a table of documents, one for
// each searchable record ([Documents]), and answers questions from it ([Searcher]).
//
// A document has its words in a tsvector, already normalised, so that PostgreSQL's own
// parsers and dictionaries have no part in it; its terms in an array; and the words in
// their order for phrases. Annotations are those of the annotations table.
package fulltext

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Searcher answers questions from the table. It is safe for concurrent use.
type Searcher struct {
	pool   *pgxpool.Pool
	schema *query.Schema
}

// NewSearcher takes a pool that may read.
func NewSearcher(pool *pgxpool.Pool, schema *query.Schema) *Searcher {
	return &Searcher{pool: pool, schema: schema}
}

// place is where a walk through the pages of an answer has come to: the last hit, by
// which the next is found whatever has been written meanwhile.
type place struct {
	Score float64     `json:"s"`
	Sort  int64       `json:"k"`
	Key   record.Key  `json:"r"`
	Total query.Total `json:"t"`
}

// Search answers a question. Errors are those of [query.Schema.Prepare] and of
// PostgreSQL. Records of inactive accounts are neither shown nor counted.
func (s *Searcher) Search(ctx context.Context, q query.Question) (answer query.Answer, err error) {
	plan, err := s.schema.Prepare(q)
	if err != nil {
		return query.Answer{}, err
	}
	var after *place
	if !plan.First {
		after = &place{}
		if err := plan.Position(after); err != nil {
			return query.Answer{}, err
		}
	}
	// All that one answer says is of one moment.
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		if answer, err = page(ctx, tx, plan, after); err != nil {
			return err
		}
		answer.Incomplete, err = store.Filling(ctx, tx, record.FullText)
		return err
	})
	if err != nil {
		return query.Answer{}, fmt.Errorf("search in PostgreSQL: %w", store.Ended(ctx, err))
	}
	return answer, nil
}

// page asks for one hit more than it gives, to know whether there are more.
func page(ctx context.Context, tx pgx.Tx, plan *query.Plan, after *place) (query.Answer, error) {
	answer := query.Answer{Hits: []query.Hit{}}
	if after != nil {
		answer.Total = after.Total
	} else if err := count(ctx, tx, plan, &answer); err != nil {
		return answer, err
	}
	places, err := hits(ctx, tx, plan, after, &answer)
	if err != nil {
		return answer, err
	}
	if len(places) > plan.Limit {
		answer.Hits, places = answer.Hits[:plan.Limit], places[:plan.Limit]
		last := places[plan.Limit-1]
		last.Total = answer.Total
		if answer.Cursor, err = plan.NextCursor(last); err != nil {
			return answer, err
		}
	}
	if plan.Annotations != nil {
		err = annotations(ctx, tx, plan, places, answer.Hits)
	}
	return answer, err
}

// hits reads a page and the places of its hits, one record's text at a time.
func hits(ctx context.Context, tx pgx.Tx, plan *query.Plan, after *place, answer *query.Answer) (places []place, err error) {
	marker := plan.Marker()
	st := matching(plan)
	st.begin("SELECT d.collection, d.did, d.rkey, d.cid, d.title, d.created_at, d.sort_key, ", st.score(), " AS score, ")
	if marker != nil {
		st.begin("d.passages")
	} else {
		st.begin("NULL::json")
	}
	rows, err := tx.Query(ctx, st.page(after, plan.Limit+1), st.args...)
	if err != nil {
		return nil, err
	}
	var h query.Hit
	var p place
	var created *time.Time
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&p.Key.Collection, &p.Key.DID, &p.Key.Rkey, &h.CID, &h.Title, &created, &p.Sort, &p.Score, &raw}, func() error {
		h.URI, h.Type, h.CreatedAt, h.Score, h.Highlights = p.Key.URI(), p.Key.Collection, nil, p.Score, nil
		if created != nil {
			utc := created.UTC()
			h.CreatedAt = &utc
		}
		if marker != nil {
			var passages []query.Passage
			if err := json.Unmarshal(raw, &passages); err != nil {
				return fmt.Errorf("read the texts of %s: %w", p.Key, err)
			}
			h.Highlights = marker.Mark(passages)
		}
		answer.Hits, places = append(answer.Hits, h), append(places, p)
		return nil
	})
	return places, err
}

// Complete finds records by the beginning of a word of their title.
func (s *Searcher) Complete(ctx context.Context, c query.Completion) (query.Titles, error) {
	collections, words, limit, err := c.Prepare(s.schema)
	if err != nil {
		return query.Titles{}, err
	}
	filling, err := store.Filling(ctx, s.pool, record.FullText) // asked first: what ends meanwhile is said to go on
	if err != nil {
		return query.Titles{}, fmt.Errorf("complete in PostgreSQL: %w", err)
	}
	rows, err := s.pool.Query(ctx, `
		SELECT d.collection, d.did, d.rkey, d.cid, d.title FROM search_documents d
		WHERE NOT d.deleted AND d.collection = ANY ($1::text[]) AND d.completions @@ ($2::text || ':*')::tsquery AND `+visible+`
		ORDER BY d.sort_key, d.did, d.collection, d.rkey LIMIT $3`, collections, lexeme(words), query.MaxCompleted)
	var found []query.Hit
	if err == nil {
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h query.Hit, err error) {
			var key record.Key
			err = row.Scan(&key.Collection, &key.DID, &key.Rkey, &h.CID, &h.Title)
			h.URI, h.Type = key.URI(), key.Collection
			return h, err
		})
	}
	if err != nil {
		return query.Titles{}, fmt.Errorf("complete in PostgreSQL: %w", store.Ended(ctx, err))
	}
	return query.Titles{Completions: query.Complete(found, words, limit), Incomplete: filling}, nil
}

// keys are the parts of several names, as parameters of a statement.
func keys(places []place) (collections []syntax.NSID, dids []syntax.DID, rkeys []syntax.RecordKey) {
	for _, p := range places {
		collections, dids, rkeys = append(collections, p.Key.Collection), append(dids, p.Key.DID), append(rkeys, p.Key.Rkey)
	}
	return collections, dids, rkeys
}
