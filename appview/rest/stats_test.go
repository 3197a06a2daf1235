package rest

import (
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

const (
	segmentations syntax.NSID = "pub.layers.segmentation.segmentation"
	graphNodes    syntax.NSID = "pub.layers.graph.graphNode"
	graphEdges    syntax.NSID = "pub.layers.graph.graphEdge"
	graphEdgeSets syntax.NSID = "pub.layers.graph.graphEdgeSet"
)

// refresh brings the statistics up to date.
func (w *world) refresh(t *testing.T) {
	t.Helper()
	_, err := statistics.NewRefresher(w.db.Pool, store.NewChanges(w.db.Pool), 0, slog.New(slog.DiscardHandler)).Refresh(t.Context())
	require.NoError(t, err)
}

func uuidOf(value string) map[string]any { return map[string]any{"value": value} }

// marked is an annotation of bytes from and to.
func marked(label string, from, to int) map[string]any {
	return map[string]any{"uuid": uuidOf("u"), "label": label, "anchor": map[string]any{"textSpan": map[string]any{"byteStart": int64(from), "byteEnd": int64(to)}}}
}

func token(label string, index int) map[string]any {
	return map[string]any{"uuid": uuidOf("u"), "label": label, "tokenIndex": int64(index)}
}

func layerOn(expression *member, kind, subkind string, annotations ...any) map[string]any {
	return map[string]any{"expression": expression.key.String(), "kind": kind, "subkind": subkind, "tokenizationId": uuidOf("words"), "annotations": annotations}
}

// toCount is a corpus of two texts, of which one has a NUL in it, and a third text.
func (w *world) toCount(t *testing.T) (corpus, first, second *member) {
	t.Helper()
	first = w.put(t, alice, expressions, "first", map[string]any{"id": "1", "text": "Olú \x00\\\"lọ", "languages": []any{"yo", "EN"}}) // 12 bytes
	second = w.put(t, bob, expressions, "second", map[string]any{"id": "2", "text": "0123456789", "languages": []any{"yo"}})
	third := w.put(t, bob, expressions, "third", map[string]any{"id": "3", "text": nil, "languages": nil})
	corpus = w.put(t, alice, corpora, "corpus", map[string]any{"name": "c"})
	w.put(t, alice, corpora, "empty", map[string]any{"name": "e"})
	for rkey, m := range map[string]struct{ expression, split any }{
		"m1": {first.key.String(), "train"}, "m2": {first.key.String(), "train"}, "m3": {second.key.String(), "test"},
		"m4": {"at://" + string(alice) + "/" + string(expressions) + "/nowhere", nil},
	} {
		w.put(t, carol, memberships, rkey, map[string]any{"corpusRef": corpus.key.String(), "expressionRef": m.expression, "split": m.split})
	}
	tokens := func(n int) (all []any) {
		for i := range n {
			all = append(all, map[string]any{"tokenIndex": int64(i)})
		}
		return all
	}
	w.put(t, alice, segmentations, "s", map[string]any{"expression": second.key.String(), "tokenizations": []any{
		map[string]any{"uuid": uuidOf("words"), "kind": "whitespace", "tokens": tokens(4)}, map[string]any{"uuid": uuidOf("pieces"), "kind": "bpe", "tokens": tokens(9)},
	}})
	w.put(t, alice, layers, "ner", layerOn(second, "span", "ner", marked("PER", 0, 3), marked("PER", 2, 5), marked("ORG", 9, 99)))
	w.put(t, bob, layers, "ner2", layerOn(second, "span", "ner", marked("PER", 4, 6), marked("", 6, 6)))
	w.put(t, bob, layers, "pos", layerOn(second, "token-tag", "pos", token("NOUN", 0), token("VERB", 1), token("NOUN", 1), token("NOUN", 77)))
	w.put(t, bob, layers, "on-first", layerOn(first, "span", "ner", marked("PER", 0, 4)))
	w.put(t, bob, layers, "on-third", layerOn(third, "document-tag", "sentiment", map[string]any{"uuid": uuidOf("u"), "label": "glad"}))
	w.put(t, bob, layers, "dangling", map[string]any{"expression": "at://" + string(alice) + "/" + string(expressions) + "/nowhere", "kind": "span", "annotations": []any{marked("PER", 0, 3)}})
	w.follow(t)
	return corpus, first, second
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	corpus, _, second := w.toCount(t)
	statsOf := func(m *member) (answer corpusStats) {
		w.get(t, "/stats/corpora/"+url.PathEscape(m.key.String()), nil, &answer)
		return answer
	}
	for _, path := range []string{"/stats", "/stats/labels", "/stats/corpora/" + url.PathEscape(corpus.key.String()), "/stats/expressions/" + url.PathEscape(second.key.String())} {
		require.Contains(t, w.refused(t, path, http.StatusServiceUnavailable, "ServiceUnavailable"), "not been computed yet")
	}
	w.refresh(t)

	answer := statsOf(corpus)
	require.False(t, answer.RefreshedAt.IsZero())
	figures := answer.Statistics
	require.EqualValues(t, 4, figures.Memberships)
	require.EqualValues(t, 1, figures.Dangling)
	require.EqualValues(t, 2, figures.Annotators)
	require.Equal(t, []statistics.Count{{Value: "yo", Count: 2}, {Value: "en", Count: 1}}, figures.Languages)
	require.Equal(t, []statistics.Count{{Value: "test", Count: 1}, {Value: "train", Count: 1}}, figures.Splits)
	whole := coverage{Expressions: 2, Layers: 4, Annotations: 10, Bytes: 22, CoveredBytes: 7 + 4, Tokens: 4, CoveredTokens: 2}
	whole.ByteShare, whole.TokenShare = share(11, 22), share(2, 4)
	require.Equal(t, whole, figures.Coverage, "overlaps count once, and what is beyond the text not at all")
	require.Len(t, figures.ByKind, 2)
	require.Equal(t, coverage{Kind: "span", Subkind: "ner", Expressions: 2, Layers: 3, Annotations: 6, Bytes: 22, CoveredBytes: 11, ByteShare: share(11, 22)}, figures.ByKind[0])
	require.Equal(t, coverage{Kind: "token-tag", Subkind: "pos", Expressions: 1, Layers: 1, Annotations: 4, Bytes: 10, ByteShare: share(0, 10), Tokens: 4, CoveredTokens: 2, TokenShare: share(2, 4)}, figures.ByKind[1])
	require.Equal(t, []label{
		{Label: "PER", Kind: "span", Subkind: "ner", Annotations: 4, Layers: 3}, {Label: "NOUN", Kind: "token-tag", Subkind: "pos", Annotations: 3, Layers: 1},
		{Label: "ORG", Kind: "span", Subkind: "ner", Annotations: 1, Layers: 1}, {Label: "VERB", Kind: "token-tag", Subkind: "pos", Annotations: 1, Layers: 1},
	}, answer.Labels.Labels)
	require.False(t, answer.Labels.More)

	empty := statsOf(w.members[corpora][0])
	if empty.URI == corpus.key.URI() {
		empty = statsOf(w.members[corpora][1])
	}
	require.Zero(t, empty.Statistics.Coverage.Expressions)
	require.Nil(t, empty.Statistics.Coverage.ByteShare)

	var one expressionStats
	w.get(t, "/stats/expressions/"+url.PathEscape(second.key.String()), nil, &one)
	require.Equal(t, coverage{Expressions: 1, Layers: 3, Annotations: 9, Bytes: 10, CoveredBytes: 7, ByteShare: share(7, 10), Tokens: 4, CoveredTokens: 2, TokenShare: share(2, 4)}, *one.Coverage)
	require.Len(t, one.ByKind, 2)

	late := w.put(t, alice, corpora, "late", map[string]any{"name": "l"})
	require.Nil(t, statsOf(late).Statistics, "it came after the moment of the figures")
	w.refused(t, "/stats/corpora/"+url.PathEscape("at://"+string(alice)+"/pub.layers.corpus.corpus/none"), http.StatusNotFound, "RecordNotFound")
}

// What changes, goes or is hidden shows in the next refresh.
func TestStatisticsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	corpus, _, second := w.toCount(t)
	w.refresh(t)
	ask := func() coverage {
		w.refresh(t)
		var answer corpusStats
		w.get(t, "/stats/corpora/"+url.PathEscape(corpus.key.String()), nil, &answer)
		return answer.Statistics.Coverage
	}
	require.EqualValues(t, 10, ask().Annotations)
	tables := store.NewTables(w.db.Pool)
	changed := store.Layer{Key: w.key(layers, "ner"), Version: 100, Rows: []record.Annotation{{Label: "LOC"}}}
	require.NoError(t, tables.ReplaceAnnotations(t.Context(), []store.Layer{changed}))
	require.EqualValues(t, 8, ask().Annotations)

	w.setActive(t, bob, false) // with the second text, and all layers but one
	got := ask()
	require.Equal(t, coverage{Expressions: 1, Bytes: 12, ByteShare: share(0, 12)}, got)
	w.refused(t, "/stats/expressions/"+url.PathEscape(second.key.String()), http.StatusNotFound, "RecordNotFound")
	w.setActive(t, bob, true)
	require.EqualValues(t, 8, ask().Annotations)

	w.apply(t, nil, store.Change{Action: record.Delete, Key: second.key})
	got = ask()
	require.EqualValues(t, 1, got.Expressions)
	require.EqualValues(t, 1, got.Annotations)
	var labels labelPage
	w.get(t, "/stats/corpora/"+url.PathEscape(corpus.key.String())+"/labels", nil, &labels)
	require.Equal(t, []label{{Label: "PER", Kind: "span", Subkind: "ner", Annotations: 1, Layers: 1}}, labels.Labels)
	w.apply(t, nil, store.Change{Action: record.Delete, Key: corpus.key})
	w.refused(t, "/stats/corpora/"+url.PathEscape(corpus.key.String()), http.StatusNotFound, "RecordNotFound")
}

func (w *world) key(collection syntax.NSID, rkey string) record.Key {
	for _, m := range w.members[collection] {
		if string(m.key.Rkey) == rkey {
			return m.key
		}
	}
	panic(rkey)
}

func TestStatisticsOfAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.toCount(t)
	var ends []map[string]any
	for _, rkey := range []string{"a", "b", "c"} {
		node := w.put(t, alice, graphNodes, rkey, map[string]any{"knowledgeRefs": nil})
		ends = append(ends, map[string]any{"recordRef": node.key.String()})
	}
	gone := map[string]any{"recordRef": "at://" + string(alice) + "/" + string(graphNodes) + "/gone"}
	w.put(t, alice, graphEdges, "e", map[string]any{"edgeType": "before", "source": ends[0], "target": ends[1]})
	w.put(t, alice, graphEdgeSets, "es", map[string]any{"edges": []any{
		map[string]any{"uuid": uuidOf("1"), "edgeType": "before", "source": ends[0], "target": ends[1]}, map[string]any{"uuid": uuidOf("2"), "edgeType": "before", "source": ends[1], "target": ends[2]},
		map[string]any{"uuid": uuidOf("3"), "edgeType": "after", "source": ends[2], "target": gone},
		map[string]any{"uuid": uuidOf("3"), "edgeType": "after", "source": map[string]any{"knowledgeRef": map[string]any{"source": "wikidata", "identifier": "Q1"}}, "target": ends[0]},
	}})
	w.refresh(t)
	var all overview
	w.get(t, "/stats", nil, &all)
	require.Contains(t, all.Records, recordCount{Type: string(expressions), Count: 3})
	require.EqualValues(t, 3, all.Statistics.Coverage.Expressions)
	require.EqualValues(t, 11, all.Statistics.Coverage.Annotations, "those on a text that is not there are not counted")
	require.Equal(t, []statistics.Count{{Value: "yo", Count: 2}, {Value: "en", Count: 1}}, all.Statistics.Languages)
	require.Equal(t, density{Nodes: 4, Edges: 3, Resolved: 2, Within: 2, Density: share(2, 12)}, all.Relations[0])
	require.Equal(t, density{Name: "before", Nodes: 3, Edges: 2, Resolved: 2, Within: 2, Density: share(2, 6)}, all.Relations[1])
	total := int64(0)
	for _, r := range all.Records {
		total += r.Count
	}
	require.Equal(t, total, all.References[0].Nodes)
	require.Positive(t, all.References[0].Resolved)
	require.Less(t, all.References[0].Resolved, all.References[0].Edges)

	var walked []label
	params := url.Values{"limit": {"2"}}
	for {
		var page labelPage
		w.get(t, "/stats/labels", params, &page)
		walked = append(walked, page.Labels...)
		if page.Cursor == "" {
			break
		}
		require.LessOrEqual(t, len(page.Labels), 2)
		params.Set("cursor", page.Cursor)
	}
	require.Len(t, walked, 5)
	require.Equal(t, label{Label: "PER", Kind: "span", Subkind: "ner", Annotations: 4, Layers: 3}, walked[0])
	var page labelPage
	w.get(t, "/stats/labels", url.Values{"kind": {"span"}, "subkind": {"ner"}}, &page)
	require.Len(t, page.Labels, 2)
	params = url.Values{"kind": {"span"}, "cursor": {params.Get("cursor")}}
	w.refused(t, "/stats/labels?"+params.Encode(), http.StatusBadRequest, "InvalidRequest")
}

// Agreement is what reports say, as they are now.
func TestAgreementOverACorpus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	corpus := w.put(t, alice, corpora, "corpus", map[string]any{"name": "c"})
	w.refresh(t)
	experiment := w.put(t, alice, experiments, "e", map[string]any{"corpusRef": corpus.key.String()})
	other := w.put(t, alice, experiments, "other", map[string]any{"corpusRef": nil})
	report := w.put(t, bob, agreementReports, "r", map[string]any{"experimentRef": experiment.key.String(), "metric": "krippendorff-alpha", "value": int64(812)})
	w.put(t, bob, agreementReports, "other", map[string]any{"experimentRef": other.key.String()})
	ask := func() (answer corpusStats) {
		w.get(t, "/stats/corpora/"+url.PathEscape(corpus.key.String()), nil, &answer)
		return answer
	}
	require.Equal(t, []string{report.key.String()}, urisOf(ask().Agreement.Reports))
	w.setActive(t, bob, false)
	require.Empty(t, ask().Agreement.Reports)
}
