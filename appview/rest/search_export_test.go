package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/query"
)

// hitLines takes a stream of hits apart.
func hitLines(t *testing.T, got answer) ([]query.Hit, lastLine) {
	t.Helper()
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	require.Equal(t, mediaLines, got.header.Get("Content-Type"))
	lines := bytes.Split(bytes.TrimSuffix(got.body, []byte("\n")), []byte("\n"))
	var hits []query.Hit
	for _, line := range lines[:len(lines)-1] {
		var h query.Hit
		require.NoError(t, json.Unmarshal(line, &h), "%s", line)
		hits = append(hits, h)
	}
	var last lastLine
	require.NoError(t, json.Unmarshal(lines[len(lines)-1], &last))
	return hits, last
}

// vanishing answers some pages, and then does not.
type vanishing struct {
	searcher
	pages int
	err   error
}

func (b *vanishing) Search(ctx context.Context, q query.Question) (query.Answer, error) {
	if b.pages--; b.pages < 0 {
		return query.Answer{}, b.err
	}
	return b.searcher.Search(ctx, q)
}

func TestSearchesAreExportedWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = query.MaxLimit + 30
	var members []*member
	for i := range n {
		m := w.put(t, alice, corpora, fmt.Sprintf("c%03d", i), map[string]any{"name": fmt.Sprintf("Quokka %d", i), "description": "of many"})
		members = append(members, m)
	}
	w.put(t, alice, corpora, "other", map[string]any{"name": "Wombat", "description": nil})
	w.toSearch(t)
	hits, last := hitLines(t, w.ask(t, Prefix+"/search/export?q=quokka"))
	require.Equal(t, lastLine{End: "complete", Records: n}, last)
	seen := map[string]bool{}
	for _, h := range hits {
		require.NotEmpty(t, h.Highlights)
		seen[string(h.URI)] = true
	}
	require.Len(t, seen, n)
	for _, m := range members {
		require.True(t, seen[m.key.String()])
	}
	var paged searched
	w.get(t, "/search", url.Values{"q": {"quokka"}, "limit": {"100"}}, &paged)
	require.Equal(t, paged.Hits, hits[:100], "in the order of pages")

	first, last := hitLines(t, w.ask(t, Prefix+"/search?q=quokka&limit=40", "Accept", mediaLines))
	require.Len(t, first, 40)
	rest, end := hitLines(t, w.ask(t, Prefix+"/search?q=quokka&cursor="+last.Cursor, "Accept", mediaLines))
	require.Equal(t, hits, append(first, rest...))
	require.Empty(t, end.Cursor)

	layers, _ := hitLines(t, w.ask(t, Prefix+"/annotations/export?label=PERSON&confidence_min=800"))
	require.Len(t, layers, 2)
	require.Len(t, layers[0].Annotations, 1)
	w.refused(t, "/search/export?q=%22", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/search/export?q=quokka&limit=3", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/search/export?q=wombat&cursor="+last.Cursor, http.StatusBadRequest, "InvalidRequest")
}

// Where the search goes away in the middle, the last line says so and how to go on.
func TestExportedSearchesSayThatTheyBroke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range query.MaxLimit + 5 {
		w.put(t, alice, corpora, fmt.Sprintf("c%03d", i), map[string]any{"name": "Quokka"})
	}
	w.follow(t)
	inPostgres := w.rest.search.First
	w.rest.search.First = &vanishing{inPostgres, 1, query.ErrUnavailable}
	hits, last := hitLines(t, w.ask(t, Prefix+"/search/export?q=quokka"))
	require.Len(t, hits, query.MaxLimit)
	require.Equal(t, []string{"error", "ServiceUnavailable"}, []string{last.End, last.Error})
	w.rest.search.First = inPostgres
	rest, end := hitLines(t, w.ask(t, Prefix+"/search/export?q=quokka&cursor="+last.Cursor))
	require.Len(t, rest, 5)
	require.Equal(t, "complete", end.End)

	w.rest.search.First, w.rest.search.Fallback = away{query.ErrUnavailable}, inPostgres
	hits, last = hitLines(t, w.ask(t, Prefix+"/search/export?q=quokka"))
	require.Len(t, hits, query.MaxLimit+5)
	require.Equal(t, lastLine{End: "complete", Records: len(hits), Degraded: true}, last)
}
