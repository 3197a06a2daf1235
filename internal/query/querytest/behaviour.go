package querytest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/query"
)

func annotation(label string, confidence int, start int) map[string]any {
	return map[string]any{
		"uuid": map[string]any{"value": fmt.Sprintf("u-%s-%d", label, start)}, "label": label, "confidence": int64(confidence),
		"anchor": map[string]any{"textSpan": map[string]any{"byteStart": int64(start), "byteEnd": int64(start + 4)}},
	}
}

func layer(kind, subkind, expression string, annotations ...any) map[string]any {
	return map[string]any{"expression": expression, "kind": kind, "subkind": subkind, "formalism": "conll-u", "annotations": annotations}
}

// annotations asks for what has to be true of the same annotation.
func (s *suite) annotations(t *testing.T) {
	tone := expression("yo-tone")
	token := annotation("PERSON", 950, 7)
	token["anchor"] = map[string]any{"tokenRef": map[string]any{"tokenizationId": map[string]any{"value": "t"}, "tokenIndex": int64(3)}}
	token["value"] = "Olú"
	s.Put(t,
		s.projected(t, writer, Layer, "apart", layer("span", "ner", tone, annotation("PERSON", 500, 0), annotation("ORG", 900, 5))),
		s.projected(t, writer, Layer, "same", layer("span", "ner", tone, annotation("ORG", 100, 0), annotation("PERSON", 900, 5), annotation("PERSON", 850, 9))),
		s.projected(t, writer, Layer, "token", layer("token-tag", "ner", expression("yo-food"), token)),
	)
	high := int64(800)
	ask := func(f query.AnnotationFilter, filters ...query.Filter) query.Answer {
		answer, err := s.Search(t.Context(), query.Question{Annotations: &f, Filters: filters, Facets: []string{query.LabelFacet, "kind"}})
		require.NoError(t, err)
		return answer
	}
	require.ElementsMatch(t, []string{"same", "token"}, rkeys(ask(query.AnnotationFilter{Label: "PERSON", ConfidenceMin: &high}).Hits))
	require.ElementsMatch(t, []string{"apart", "same", "token"}, rkeys(ask(query.AnnotationFilter{Label: "PERSON"}).Hits))
	require.Equal(t, []string{"token"}, rkeys(ask(query.AnnotationFilter{Label: "PERSON", Anchor: "tokenRef"}).Hits))
	require.Equal(t, []string{"token"}, rkeys(ask(query.AnnotationFilter{Value: "Olú"}).Hits))
	require.Equal(t, []string{"same"}, rkeys(ask(query.AnnotationFilter{Label: "PERSON", ConfidenceMin: &high}, query.Filter{Field: "expression", Values: []string{tone}}).Hits))
	require.Empty(t, ask(query.AnnotationFilter{Label: "PERSON"}, query.Filter{Field: "expression"}).Hits, "no value is none of them")

	answer := ask(query.AnnotationFilter{Label: "PERSON", ConfidenceMin: &high}, query.Filter{Field: "kind", Values: []string{"span"}})
	require.Len(t, answer.Hits, 1)
	require.EqualValues(t, 2, answer.Hits[0].Matching)
	start, end, confidence := int64(5), int64(9), int64(900)
	require.Equal(t, query.Annotation{
		Ordinal: 1, UUID: "u-PERSON-5", Label: "PERSON", Anchor: "textSpan", ByteStart: &start, ByteEnd: &end, Confidence: &confidence,
	}, answer.Hits[0].Annotations[0])
	require.Equal(t, []query.Count{{Value: "PERSON", Count: 2}}, answer.Facets[query.LabelFacet])

	answer = ask(query.AnnotationFilter{})
	require.Equal(t, []query.Count{{Value: "PERSON", Count: 4}, {Value: "ORG", Count: 2}}, answer.Facets[query.LabelFacet])
	require.Equal(t, []query.Count{{Value: "span", Count: 2}, {Value: "token-tag", Count: 1}}, answer.Facets["kind"])
	index := int64(3)
	for _, h := range answer.Hits {
		if h.URI.RecordKey() == "token" {
			require.Equal(t, &index, h.Annotations[0].TokenIndex)
			require.Equal(t, "Olú", h.Annotations[0].Value)
		}
	}
	require.ElementsMatch(t, []string{"apart", "same", "token"}, s.found(t, query.Question{Text: "label:person"}))
	s.compared(t)
	s.onTexts(t)
}

// onTexts finds layers by their own language or by that of their text.
func (s *suite) onTexts(t *testing.T) {
	food := expression("yo-food")
	own := layer("span", "gloss", expression("yo-town"), annotation("GLOSS", 1, 0))
	own["languages"] = []any{"yo-NG"}
	s.put(t, writer, Layer, "own", own)
	ask := func(texts ...string) []string {
		return s.found(t, query.Question{Languages: []string{"yo"}, OnTexts: texts, Annotations: &query.AnnotationFilter{}})
	}
	require.ElementsMatch(t, []string{"own"}, ask())
	require.ElementsMatch(t, []string{"own", "token"}, ask(food))
	require.ElementsMatch(t, []string{"own", "token", "apart", "same"}, ask(food, expression("yo-tone")))
	require.Equal(t, []string{"token"}, s.found(t, query.Question{
		Languages: []string{"yo"}, OnTexts: []string{food}, Annotations: &query.AnnotationFilter{Label: "PERSON"},
		Filters: []query.Filter{{Field: "expression", Values: []string{food}}},
	}))
	s.put(t, writer, Layer, "own", nil)
}

// compared asks by numbers: of annotations, what has to be true of the same one.
func (s *suite) compared(t *testing.T) {
	s.Put(t,
		s.projected(t, writer, Corpus, "small", map[string]any{"name": "Small", "expressionCount": int64(9)}),
		s.projected(t, writer, Corpus, "large", map[string]any{"name": "Large", "expressionCount": int64(100)}),
		s.projected(t, writer, Corpus, "unknown", map[string]any{"name": "Unknown"}),
		s.projected(t, other, Layer, "best", map[string]any{
			"expression": expression("nowhere"), "kind": "span", "rank": int64(1), "annotations": []any{annotation("LOC", 800, 0)},
		}),
	)
	for text, want := range map[string][]string{
		`expressionCount>9`:                           {"large"},
		`expressionCount>=9`:                          {"small", "large"},
		`expressionCount<100`:                         {"small"},
		`expressionCount>9 expressionCount<=100`:      {"large"},
		`expressionCount:9`:                           {"small"},
		`-expressionCount>9 type:corpus name:unknown`: {"unknown"},
		`rank<=1`:                                              {"best"},
		`confidence>=950`:                                      {"token"},
		`confidence>800 annotation.label:PERSON`:               {"same", "token"},
		`confidence>800 confidence<=900`:                       {"apart", "same"},
		`confidence:800`:                                       {"best"},
		`confidence<=100 kind:span`:                            {"same"},
		`annotation.label:PERSON annotation.anchor:tokenRef`:   {"token"},
		`annotation.label:PERSON confidence>800 kind:span`:     {"same"},
		`annotation.label:ORG confidence<900 confidence>100`:   {},
		`annotation.value:Olú confidence>940 confidence<=1000`: {"token"},
	} {
		require.ElementsMatch(t, want, s.found(t, query.Question{Text: text}), text)
	}
	answer, err := s.Search(t.Context(), query.Question{Text: "confidence>800 annotation.label:PERSON kind:span"})
	require.NoError(t, err)
	require.EqualValues(t, 2, answer.Hits[0].Matching, "what matches is shown")
	for _, rkey := range []string{"small", "large", "unknown"} {
		s.put(t, writer, Corpus, rkey, nil)
	}
	s.put(t, other, Layer, "best", nil)
}

func (s *suite) facets(t *testing.T) {
	answer, err := s.Search(t.Context(), query.Question{Text: "for*", Facets: []string{"type", "language", "kind"}})
	require.NoError(t, err)
	require.Equal(t, query.Total{Value: 3, Exact: true}, answer.Total)
	require.Equal(t, map[string][]query.Count{
		"type":     {{Value: string(Expression), Count: 3}},
		"language": {{Value: "en", Count: 2}, {Value: "fr", Count: 1}},
		"kind":     {{Value: "sentence", Count: 3}},
	}, map[string][]query.Count{"type": answer.Facets["type"], "language": answer.Facets["language"], "kind": answer.Facets["kind"]})
}

// pages walks through answers by pages of several sizes while others write.
func (s *suite) pages(t *testing.T) {
	const n = 23
	var all []Projected
	for i := range n {
		all = append(all, s.projected(t, writer, Corpus, fmt.Sprintf("page-%02d", i), map[string]any{
			"name": fmt.Sprintf("Paging %d", i), "description": "walking " + fmt.Sprint(i%5), "createdAt": "2026-01-01T00:00:00Z",
		}))
	}
	s.Put(t, all...)
	walks := map[string]query.Question{
		"ranked": {Text: "paging walking"}, "newest first": {Filters: []query.Filter{{Field: "description", Values: []string{"walking"}}}},
	}
	for name, q := range walks {
		q.Limit = 100
		whole := s.found(t, q)
		require.Len(t, whole, n, name)
		for _, size := range []int{2, 5, 22, 23} {
			q.Limit = size
			require.Equal(t, whole, s.walk(t, q, func(int) {}), "%s by %d", name, size)
		}
		q.Limit = 4
		written := 0
		walked := s.walk(t, q, func(page int) { // some go to every place of the order
			written++
			s.put(t, writer, Corpus, fmt.Sprintf("late-%s-%d", name[:2], page), map[string]any{
				"name": "Paging paging", "description": "walking", "createdAt": []string{"2020-01-01T00:00:00Z", "2026-02-01T00:00:00Z"}[page%2],
			})
		})
		walked = slices.DeleteFunc(walked, func(rkey string) bool { return rkey[:4] == "late" })
		require.Equal(t, whole, walked, name)
		var late []Projected
		for page := range written {
			late = append(late, s.projected(t, writer, Corpus, fmt.Sprintf("late-%s-%d", name[:2], page), nil))
		}
		s.Put(t, late...)
	}
	q := query.Question{Text: "paging", Limit: 2}
	answer, err := s.Search(t.Context(), q)
	require.NoError(t, err)
	require.NotEmpty(t, answer.Cursor)
	q.Cursor = answer.Cursor
	q.Text = "walking"
	_, err = s.Search(t.Context(), q)
	require.ErrorIs(t, err, query.ErrCursor)
	q.Cursor = "nonsense"
	_, err = s.Search(t.Context(), q)
	require.ErrorIs(t, err, query.ErrCursor)
}

// walk is the records of all pages; between is called after each but the last.
func (s *suite) walk(t *testing.T, q query.Question, between func(page int)) []string {
	t.Helper()
	var all []string
	total := query.Total{}
	for page := 0; ; page++ {
		answer, err := s.Search(t.Context(), q)
		require.NoError(t, err)
		if page == 0 {
			total = answer.Total
		}
		require.Equal(t, total, answer.Total, "the total is the first page's")
		require.LessOrEqual(t, len(answer.Hits), q.Limit)
		all = append(all, rkeys(answer.Hits)...)
		if answer.Cursor == "" {
			return all
		}
		require.Less(t, page, 100, "the walk does not end")
		q.Cursor = answer.Cursor
		between(page)
	}
}

// changes looks for what was before an update, a late writer's version, and a deletion.
func (s *suite) changes(t *testing.T) {
	old := s.projected(t, writer, Corpus, "changing", map[string]any{"name": "Quokka", "domain": "legal"})
	s.Put(t, old)
	require.Equal(t, []string{"changing"}, s.found(t, query.Question{Text: "quokka domain:legal"}))
	s.put(t, writer, Corpus, "changing", map[string]any{"name": "Wombat"})
	require.Empty(t, s.found(t, query.Question{Text: "quokka"}))
	require.Equal(t, []string{"changing"}, s.found(t, query.Question{Text: "wombat"}))
	s.Put(t, old)
	require.Empty(t, s.found(t, query.Question{Text: "quokka"}), "an older version came late")
	s.put(t, writer, Corpus, "changing", nil)
	require.Empty(t, s.found(t, query.Question{Text: "wombat"}))
	s.Put(t, old)
	require.Empty(t, s.found(t, query.Question{Text: "quokka"}), "an older version came after the deletion")
	completed, err := s.Complete(t.Context(), query.Completion{Text: "quok"})
	require.NoError(t, err)
	require.Empty(t, completed.Completions)
}

// accounts hides one whose documents are still there.
func (s *suite) accounts(t *testing.T) {
	s.put(t, other, Corpus, "hidden", map[string]any{"name": "Secret numbat"})
	s.put(t, writer, Corpus, "shown", map[string]any{"name": "Open numbat"})
	ask := func() []string {
		completed, err := s.Complete(t.Context(), query.Completion{Text: "numb"})
		require.NoError(t, err)
		found := s.found(t, query.Question{Text: "numbat"})
		require.Len(t, completed.Completions, len(found))
		return found
	}
	require.ElementsMatch(t, []string{"hidden", "shown"}, ask())
	for _, status := range []string{"deactivated", "suspended", "takendown", "deleted"} {
		s.Status(t, other, status)
		require.Equal(t, []string{"shown"}, ask(), status)
		s.Status(t, other, "active")
		require.ElementsMatch(t, []string{"hidden", "shown"}, ask(), status)
	}
}

func (s *suite) completions(t *testing.T) {
	s.Put(t,
		s.projected(t, writer, Corpus, "treebank", map[string]any{"name": "Ọ̀rọ̀ Treebank"}),
		s.projected(t, writer, Ontology, "oro", map[string]any{"name": "Treebank of Òró"}),
	)
	for text, want := range map[string][]string{
		"tree": {"oro", "treebank"}, "ORO": {"treebank", "oro"}, "oro tr": {"treebank"}, "treebank of or": {"oro"}, "reebank": {},
	} {
		completed, err := s.Complete(t.Context(), query.Completion{Text: text})
		require.NoError(t, err)
		got := []string{}
		for _, c := range completed.Completions {
			got = append(got, string(c.URI.RecordKey()))
		}
		require.Equal(t, want, got, text)
	}
	completed, err := s.Complete(t.Context(), query.Completion{Text: "tree", Types: s.Schema.Collections()[2:3]})
	require.NoError(t, err)
	require.Len(t, completed.Completions, 1)
	require.Equal(t, "Ọ̀rọ̀ Treebank", completed.Completions[0].Title)
}

// refusals are told before a store is asked.
func (s *suite) refusals(t *testing.T) {
	_, err := s.Search(t.Context(), query.Question{Text: `ọkà "open`})
	var wrong *query.SyntaxError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, 4, wrong.Char)
	for _, q := range []query.Question{
		{Limit: 101}, {Types: s.Schema.Collections()[:0:0], Facets: []string{"text"}}, {Filters: []query.Filter{{Field: "nope"}}},
		{Facets: []string{query.LabelFacet}}, {Types: append(s.Schema.Collections()[:1:1], "pub.layers.nope.nope")},
	} {
		_, err := s.Search(t.Context(), q)
		var invalid *query.Invalid
		require.ErrorAs(t, err, &invalid, "%+v", q)
	}
}
