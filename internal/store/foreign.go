package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// ForeignQuery lists records of collections that have no partition, newest first.
// What is nil matches all.
type ForeignQuery struct {
	Repo             *syntax.DID
	Collection       *string
	CollectionPrefix *string // of the NSID's text: "app.bsky.feed."
	Limit            int     // at least 1
	After            *Position
}

// ListForeign returns a page of foreign records.
func (r *Reader) ListForeign(ctx context.Context, query ForeignQuery) (Page, error) {
	if query.Limit < 1 {
		return Page{}, fmt.Errorf("list foreign records: the limit %d is below 1", query.Limit)
	}
	s := &statement{mode: planned}
	var conditions []string
	if query.Repo != nil {
		conditions = append(conditions, "r.did = "+s.arg(*query.Repo))
	}
	if query.Collection != nil {
		conditions = append(conditions, "r.collection = "+s.arg(*query.Collection))
	}
	if at := query.After; at != nil {
		conditions = append(conditions, "(r.sort_key, r.did, r.collection, r.rkey) > ("+
			s.arg(at.sortKey())+", "+s.arg(at.DID)+", "+s.arg(at.Collection)+", "+s.arg(at.Rkey)+")")
	}
	if query.CollectionPrefix == nil {
		s.write("SELECT ", recordColumns, ", r.sort_key FROM records_foreign r WHERE ", strings.Join(append(conditions, ofActive), " AND "))
	} else {
		s.underPrefix(*query.CollectionPrefix, conditions, fetched(query.Limit))
	}
	s.write(" ORDER BY r.sort_key, r.did, r.collection, r.rkey LIMIT ", fetched(query.Limit))
	page, err := r.page(ctx, s, query.Limit)
	if err != nil {
		return Page{}, fmt.Errorf("list foreign records: %w", ended(ctx, err))
	}
	return page, nil
}

// underPrefix merges the lists of all collections whose name has the prefix. Their
// names are found by leaping from one to the next in the index.
func (s *statement) underPrefix(prefix string, conditions []string, limit string) {
	p := s.arg(prefix) + "::text"
	s.write(`WITH RECURSIVE names (name) AS (
			(SELECT collection FROM records_foreign WHERE collection >= `, p, ` ORDER BY collection LIMIT 1)
			UNION ALL
			SELECT (SELECT collection FROM records_foreign WHERE collection > names.name ORDER BY collection LIMIT 1)
			FROM names WHERE starts_with(names.name, `, p, `))
		SELECT r.* FROM names CROSS JOIN LATERAL (
			SELECT `, recordColumns, `, r.sort_key FROM records_foreign r
			WHERE `, strings.Join(append(conditions, "r.collection = names.name", ofActive), " AND "), `
			ORDER BY r.sort_key, r.did, r.rkey LIMIT `, limit, `) r
		WHERE starts_with(names.name, `, p, `)`)
}
