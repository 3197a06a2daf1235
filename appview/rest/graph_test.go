package rest

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// project writes what records contribute to the graph, as the workers do.
func (w *world) project(t *testing.T, members ...*member) {
	t.Helper()
	for _, m := range members {
		c, ok := w.catalog.Collection(m.key.Collection)
		require.True(t, ok)
		sub, err := project.Subgraph(c, record.Record{Key: m.key, Value: m.json, Version: 1})
		require.NoError(t, err)
		require.NoError(t, relations.New(w.db.Pool).Replace(t.Context(), []relations.Record{
			{Key: sub.Key, Version: sub.Version, Label: traversal.Label(sub.Properties), Edges: sub.Stated()},
		}))
	}
}

func TestGraphRoutesAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	concept := func(rkey, identifier string) *member {
		return w.put(t, alice, "pub.layers.graph.graphNode", rkey, map[string]any{"label": "the " + rkey, "knowledgeRefs": []any{
			map[string]any{"source": "wikidata", "identifier": identifier, "label": "water"},
		}})
	}
	book := w.put(t, alice, expressionType, "book", map[string]any{"parentRef": nil})
	verse := w.put(t, bob, expressionType, "verse", map[string]any{"parentRef": book.key.String()})
	onto := w.put(t, alice, ontologyType, "onto", nil)
	noun := w.put(t, alice, typeDefType, "noun", map[string]any{"ontologyRef": onto.key.String(), "parentTypeRef": nil})
	name := w.put(t, alice, typeDefType, "name", map[string]any{"ontologyRef": onto.key.String(), "parentTypeRef": noun.key.String()})
	a, b := concept("a", "Q283"), concept("b", "Q283")
	w.project(t, book, verse, onto, noun, name, a, b)

	names := func(nodes []graphNode) (out []string) {
		for _, n := range nodes {
			out = append(out, n.Node)
		}
		return out
	}
	var p part
	w.get(t, w.at(verse.key, "ancestors"), nil, &p)
	require.Equal(t, []string{verse.key.String(), book.key.String()}, names(p.Nodes))
	w.get(t, w.at(book.key, "descendants"), nil, &p)
	require.Equal(t, []string{book.key.String(), verse.key.String()}, names(p.Nodes))
	w.get(t, w.at(noun.key, "hierarchy"), nil, &p)
	require.Equal(t, []string{noun.key.String(), name.key.String()}, names(p.Nodes))
	w.get(t, w.at(onto.key, "types"), nil, &p)
	require.ElementsMatch(t, []string{onto.key.String(), noun.key.String(), name.key.String()}, names(p.Nodes))

	var g grounding
	w.get(t, "/graph/grounded", url.Values{"knowledge": {"Q283"}}, &g)
	require.Len(t, g.Neighbors, 2)
	require.Equal(t, []string{"knowledge:wikidata:Q283"}, names(g.Entries))
	require.Equal(t, "water", g.Entries[0].Label)

	at := func(node, segment string) string { return "/graph/nodes/" + url.PathEscape(node) + "/" + segment }
	var n neighbors
	w.get(t, at(g.Entries[0].Node, "neighbors"), url.Values{"limit": {"1"}, "edge_type": {"KNOWLEDGE_REF", "ALIGNS"}, "direction": {"in"}}, &n)
	require.Equal(t, "the a", n.Neighbors[0].Node.Label)
	require.Equal(t, traversal.In, n.Neighbors[0].Direction)
	n2 := neighbors{}
	w.get(t, at(g.Entries[0].Node, "neighbors"), url.Values{"limit": {"1"}, "edge_type": {"KNOWLEDGE_REF", "ALIGNS"}, "direction": {"in"}, "cursor": {n.Cursor}}, &n2)
	require.Equal(t, "the b", n2.Neighbors[0].Node.Label)
	require.Empty(t, n2.Cursor)

	var way graphPath
	w.get(t, "/graph/path", url.Values{"from": {"at://alice.test/pub.layers.graph.graphNode/a"}, "to": {b.key.String()}}, &way)
	require.Equal(t, 2, way.Hops)
	w.get(t, "/graph/path", url.Values{"from": {a.key.String()}, "to": {b.key.String()}, "max_hops": {"1"}}, &way)
	require.False(t, way.Found)

	w.get(t, at(a.key.String(), "neighborhood"), url.Values{"depth": {"2"}, "edge_type": {"KNOWLEDGE_REF"}}, &p)
	require.Equal(t, []string{a.key.String(), g.Entries[0].Node, b.key.String()}, names(p.Nodes))
	w.setActive(t, alice, false)
	w.get(t, at(b.key.String(), "neighborhood"), url.Values{"depth": {"2"}}, &p)
	require.Len(t, p.Nodes, 1)
	require.True(t, p.Node.Dangling)

	// While the graph is being filled, its answers say so.
	require.False(t, p.Incomplete || n.Incomplete || g.Incomplete || way.Incomplete)
	_, err := w.db.Pool.Exec(t.Context(), "INSERT INTO sweeps (version, target, collection) VALUES (1, 'relations', 'pub.layers.graph.graphNode')")
	require.NoError(t, err)
	w.get(t, at(b.key.String(), "neighborhood"), nil, &p)
	w.get(t, at(b.key.String(), "neighbors"), nil, &n)
	w.get(t, "/graph/grounded", url.Values{"knowledge": {"Q283"}}, &g)
	w.get(t, "/graph/path", url.Values{"from": {a.key.String()}, "to": {b.key.String()}}, &way)
	require.True(t, p.Incomplete && n.Incomplete && g.Incomplete && way.Incomplete)
	require.True(t, p.isDegraded(), "so that it is not kept")

	for target, name := range map[string]string{
		at(a.key.String(), "neighborhood") + "?depth=6":       "InvalidRequest",
		at(a.key.String(), "neighbors") + "?edge_type=EATS":   "InvalidRequest",
		at(a.key.String(), "neighbors") + "?cursor=x":         "InvalidRequest",
		at("knowledge:", "neighbors"):                         "InvalidRequest",
		at("water", "neighbors"):                              "InvalidRequest",
		w.at(verse.key, "ancestors") + "?limit=0":             "InvalidRequest",
		"/graph/path?from=" + url.QueryEscape(a.key.String()): "InvalidRequest",
		"/graph/grounded":                                     "InvalidRequest",
	} {
		w.refused(t, target, http.StatusBadRequest, name)
	}
}
