package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
)

func searchSchema(c *catalog.Catalog) *query.Schema {
	var types []query.Type
	for _, collection := range c.Collections() {
		if t, ok := project.Searched(collection); ok {
			types = append(types, t)
		}
	}
	return query.NewSchema(types)
}

// follow does what the workers do for every record of the world.
func (w *world) follow(t *testing.T) {
	t.Helper()
	documents := fulltext.NewDocuments(w.db.Pool, searchSchema(w.catalog))
	for collection, members := range w.members {
		c, _ := w.catalog.Collection(collection)
		for i, m := range members {
			rec := record.Record{Key: m.key, CID: m.cid, Value: m.json, CreatedAt: m.created, IndexedAt: m.created, Version: int64(i + 1)}
			for _, target := range project.Targets(c) {
				switch target {
				case record.Search:
					doc, err := project.Document(c, rec)
					require.NoError(t, err)
					require.NoError(t, documents.Write(t.Context(), []fulltext.Document{{Key: m.key, Version: doc.Version, CID: m.cid, CreatedAt: m.created, Body: doc.Body}}))
				case record.Tables:
					rows, err := project.Annotations(c, rec)
					require.NoError(t, err)
					require.NoError(t, store.NewTables(w.db.Pool).ReplaceAnnotations(t.Context(), []store.Layer{{Key: m.key, Version: rec.Version, Rows: rows}}))
				}
			}
		}
	}
}

// away is a search server that does not answer.
type away struct{ err error }

func (a away) Search(context.Context, query.Question) (query.Answer, error) {
	return query.Answer{}, a.err
}

func (a away) Complete(context.Context, query.Completion) (query.Titles, error) {
	return query.Titles{}, a.err
}

func annotated(label string, confidence int) map[string]any {
	return map[string]any{
		"uuid": map[string]any{"value": label}, "label": label, "confidence": int64(confidence),
		"anchor": map[string]any{"textSpan": map[string]any{"byteStart": int64(0), "byteEnd": int64(5)}},
	}
}

func (w *world) toSearch(t *testing.T) {
	t.Helper()
	in := w.put(t, alice, expressions, "in", map[string]any{"id": "First", "text": "Èdè Yorùbá dára", "languages": []any{"yo-NG"}})
	out := w.put(t, bob, expressions, "out", map[string]any{"id": "Second", "text": "nothing of that", "languages": []any{"en"}})
	corpus := w.put(t, alice, corpora, "corpus", map[string]any{"name": "Yorùbá treebank"})
	w.put(t, alice, memberships, "m", map[string]any{"corpusRef": corpus.key.String(), "expressionRef": in.key.String()})
	for name, expression := range map[string]*member{"l-in": in, "l-out": out} {
		w.put(t, alice, layers, name, map[string]any{
			"expression": expression.key.String(), "kind": "span", "languages": []any{"yo"},
			"annotations": []any{annotated("ORG", 950), annotated("PERSON", 900), annotated("PERSON", 100)},
		})
	}
	w.follow(t)
}

func hitsOf(answer searched) []string {
	out := []string{}
	for _, h := range answer.Hits {
		out = append(out, string(h.URI.RecordKey()))
	}
	return out
}

func TestSearch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.toSearch(t)
	ask := func(path string, params url.Values) (answer searched) {
		w.get(t, path, params, &answer)
		return answer
	}

	answer := ask("/search", url.Values{"q": {"yoruba dara"}})
	require.Equal(t, []string{"in"}, hitsOf(answer))
	require.Equal(t, query.Highlight{Path: "text", ByteStart: 6, ByteEnd: 14, CharStart: 4, CharEnd: 10, Before: "Èdè ", Match: "Yorùbá", After: " dára"}, answer.Hits[0].Highlights[0])
	require.Equal(t, []query.Count{{Value: "yo-ng", Count: 1}}, answer.Facets["language"])
	require.Contains(t, hitsOf(ask("/search", url.Values{"q": {"yoruba"}, "type": {"corpora"}})), "corpus")
	require.NotContains(t, hitsOf(ask("/search", url.Values{"q": {"yoruba"}, "type": {"corpora"}})), "in")
	require.Equal(t, []string{"in"}, hitsOf(ask("/search", url.Values{"q": {"dara"}, "language": {"yo", "ar"}})))

	corpus := w.members[corpora][0].key.String()
	answer = ask("/annotations", url.Values{"kind": {"span"}, "label": {"PERSON"}, "confidence_min": {"800"}, "language": {"yo"}, "corpus": {corpus}})
	require.Equal(t, []string{"l-in"}, hitsOf(answer), "every span layer with PERSON above 0.8 on Yoruba text in this corpus")
	require.EqualValues(t, 1, answer.Hits[0].Matching)
	require.Equal(t, 1, answer.Hits[0].Annotations[0].Ordinal)
	require.Equal(t, []query.Count{{Value: "PERSON", Count: 1}}, answer.Facets[query.LabelFacet])
	require.ElementsMatch(t, []string{"l-in", "l-out"}, hitsOf(ask("/annotations", url.Values{"label": {"PERSON"}})))
	w.byTheirTexts(t)
	page := ask("/annotations", url.Values{"label": {"PERSON"}, "limit": {"1"}})
	next := ask("/annotations", url.Values{"label": {"PERSON"}, "limit": {"1"}, "cursor": {page.Cursor}})
	require.ElementsMatch(t, []string{"l-in", "l-out"}, append(hitsOf(page), hitsOf(next)...))
	require.Empty(t, next.Cursor)

	var completed completions
	w.get(t, "/corpora/autocomplete", url.Values{"q": {"TREEB"}}, &completed)
	require.Len(t, completed.Completions, 1)
	require.Equal(t, "Yorùbá treebank", completed.Completions[0].Title)
	require.False(t, completed.Incomplete)

	w.setActive(t, alice, false)
	require.Empty(t, ask("/search", url.Values{"q": {"yoruba dara"}}).Hits)
	require.Empty(t, ask("/annotations", url.Values{"corpus": {corpus}}).Hits)
}

func TestSearchRefusesAndFallsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.toSearch(t)
	require.Equal(t, `parameter "q" at character 3: the quote is not closed; close it with another "`, w.refused(t, "/search?q=a+%22b", http.StatusBadRequest, "InvalidRequest"))
	w.refused(t, "/search?cursor=x", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/search?type=nope", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/corpora/autocomplete", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/corpora/autocomplete?q=%21", http.StatusBadRequest, "InvalidRequest")

	inPostgres := w.rest.search.First
	w.rest.search.First = away{query.ErrUnavailable}
	w.refused(t, "/search?q=yoruba", http.StatusServiceUnavailable, "ServiceUnavailable")
	w.rest.search.Fallback = inPostgres
	got := w.ask(t, Prefix+"/search?q=dara&limit=1")
	var answer searched
	require.NoError(t, json.Unmarshal(got.body, &answer))
	require.True(t, answer.Degraded)
	require.Equal(t, []string{"in"}, hitsOf(answer))
	w.refused(t, "/search?q=%22", http.StatusBadRequest, "InvalidRequest")

	// While PostgreSQL's documents are being filled, its answers say so.
	require.False(t, answer.Incomplete)
	fill := "INSERT INTO sweeps (version, target, collection) VALUES (1, 'fulltext', 'pub.layers.corpus.corpus')"
	_, err := w.db.Pool.Exec(t.Context(), fill)
	require.NoError(t, err)
	w.get(t, "/search", url.Values{"q": {"dara"}}, &answer)
	require.True(t, answer.Incomplete)
	_, last := hitLines(t, w.ask(t, Prefix+"/search/export?q=dara"))
	require.True(t, last.Incomplete)
	var completed completions
	w.get(t, "/corpora/autocomplete", url.Values{"q": {"treeb"}}, &completed)
	require.True(t, completed.Incomplete)
	require.True(t, completed.isDegraded(), "so that it is not kept")
	require.Len(t, completed.Completions, 1)
}

// byTheirTexts asks for layers that name no language, on texts that do, until the text
// names another or is gone.
func (w *world) byTheirTexts(t *testing.T) {
	text := w.put(t, bob, expressions, "text", map[string]any{"languages": []any{"yo-NG", "en"}})
	corpus := w.put(t, bob, corpora, "texts", map[string]any{"name": "Texts"})
	w.put(t, bob, memberships, "texts", map[string]any{"corpusRef": corpus.key.String(), "expressionRef": text.key.String()})
	w.put(t, carol, layers, "silent", map[string]any{"expression": text.key.String(), "kind": "span", "languages": nil, "annotations": []any{annotated("GPE", 900)}})
	w.follow(t)
	ask := func(language, name, value string) []string {
		var answer searched
		w.get(t, "/annotations", url.Values{"label": {"GPE"}, "language": {language}, name: {value}}, &answer)
		return hitsOf(answer)
	}
	// Without its text being named, a layer's language is what it says itself.
	require.Empty(t, ask("yo", "kind", "span"))
	for _, params := range []url.Values{{"q": {"lang:yo"}, "type": {"annotation-layers"}}, {"language": {"yo"}, "type": {"annotation-layers"}}} {
		var answer searched
		w.get(t, "/search", params, &answer)
		require.NotContains(t, hitsOf(answer), "silent")
		require.Contains(t, hitsOf(answer), "l-in")
	}
	for name, value := range map[string]string{"corpus": corpus.key.String(), "expression": text.key.String()} {
		require.Equal(t, []string{"silent"}, ask("YO", name, value))
		require.Equal(t, []string{"silent"}, ask("en", name, value))
		require.Empty(t, ask("y", name, value))
	}
	w.put(t, bob, expressions, "text", map[string]any{"languages": []any{"sw"}})
	require.Empty(t, ask("yo", "corpus", corpus.key.String()), "the text is in another language at once")
	require.Equal(t, []string{"silent"}, ask("sw", "corpus", corpus.key.String()))
	w.setActive(t, bob, false)
	require.Empty(t, ask("sw", "expression", text.key.String()))
	w.setActive(t, bob, true)
	w.apply(t, nil, store.Change{Action: record.Delete, Key: text.key})
	require.Empty(t, ask("sw", "corpus", corpus.key.String()))
	w.members[expressions] = slices.DeleteFunc(w.members[expressions], func(m *member) bool { return m.key == text.key })
}
