package traversaltest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

func everyRelation(w *world) {
	for _, t := range traversal.EdgeTypes {
		from, to, third := "from"+string(t), "to"+string(t), "by"+string(t)
		e := w.edge(t, from, to)
		e.Properties = map[string]any{"edge_type": "is-a", "confidence": int64(900), "ordinal": int64(3), "open": true, "share": 0.5}
		w.record(from)
		w.record(to)
		w.record(third, e)
		for _, f := range []traversal.Filter{{}, {Types: []traversal.EdgeType{t}}, {Types: []traversal.EdgeType{t}, Direction: traversal.Out}} {
			found := w.neighbors(w.id(from), f, 10)
			require.Len(w, found, 1)
			require.Equal(w, e.Properties, found[0].Edge.Properties)
			require.Equal(w, w.key(third).String(), found[0].Edge.Stated)
			require.Equal(w, "the "+to, found[0].Node.Label)
		}
		require.Len(w, w.neighbors(w.id(to), traversal.Filter{Direction: traversal.In}, 10), 1)
		require.Empty(w, w.neighbors(w.id(to), traversal.Filter{Direction: traversal.Out}, 10))
		require.Empty(w, w.neighbors(w.id(third), traversal.Filter{}, 10), "who states an edge need not be an end of it")
		require.Equal(w, 1, w.path(w.id(from), w.id(to), traversal.Filter{Types: []traversal.EdgeType{t}, Direction: traversal.Out}, 10).Hops)
		require.False(w, w.path(w.id(to), w.id(from), traversal.Filter{Direction: traversal.Out}, 10).Found)
	}
}

func directions(w *world) {
	layer := w.keyOf(0, layers, "layer")
	persona := graph.External("did:web:persona.example")
	w.write(
		w.subgraph(layer,
			graph.Edge{Type: traversal.Annotates, From: graph.Record(layer), To: graph.Record(w.key("text")), Properties: map[string]any{}},
			graph.Edge{Type: traversal.References, From: graph.Record(layer), To: graph.Record(w.key("text")), Properties: map[string]any{"path": "expression"}},
			graph.Edge{Type: traversal.References, From: graph.Record(layer), To: graph.Record(w.key("text")), Properties: map[string]any{"path": "other[]"}},
			graph.Edge{Type: traversal.ByPersona, From: graph.Record(layer), To: persona, Properties: map[string]any{}},
			graph.Edge{Type: traversal.KnowledgeRef, From: graph.Record(layer), To: graph.Knowledge("wikidata", "Q1"), Properties: map[string]any{"label": "one"}}),
		w.subgraph(w.key("text"), w.edge(traversal.References, "text", "elsewhere")),
		w.subgraph(w.key("elsewhere")))
	root := traversal.OfRecord(layer)
	for _, f := range []traversal.Filter{
		{}, {Direction: traversal.In}, {Direction: traversal.Out}, {Types: []traversal.EdgeType{traversal.ByPersona, traversal.Annotates}},
		{Collection: graphNodes}, {Collection: layers}, {Collection: layers, Direction: traversal.In}, {Types: []traversal.EdgeType{traversal.Aligns}},
	} {
		for _, id := range []traversal.ID{root, w.id("text"), w.id("elsewhere"), persona.ID(), traversal.OfKnowledge("wikidata", "Q1"), w.id("unknown")} {
			w.neighbors(id, f, 2)
			for depth := 1; depth <= traversal.MaxDepth; depth++ {
				w.neighborhood(id, f, depth)
			}
			if f.Collection == "" {
				w.path(root, id, f, 10)
				w.path(id, w.id("elsewhere"), f, 10)
			}
		}
	}
	require.Len(w, w.neighbors(root, traversal.Filter{}, 10), 5, "edges between the same two nodes are told apart")
	require.Equal(w, "one", w.neighbors(root, traversal.Filter{Types: []traversal.EdgeType{traversal.KnowledgeRef}}, 10)[0].Node.Label)
}

func pages(w *world) {
	var all []graph.Subgraph
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i%25)
		var edges []graph.Edge
		for j := range i % 4 {
			e := w.edge(traversal.EdgeTypes[(i+j)%5], "hub", name)
			if i%3 == 0 {
				e.From, e.To = e.To, e.From
			}
			e.Properties["ordinal"] = int64(j)
			edges = append(edges, e, e)
		}
		edges = append(edges, w.edge(traversal.SubtypeOf, "hub", "hub"))
		all = append(all, w.subgraph(w.key(fmt.Sprintf("by%02d", i)), edges...))
	}
	w.write(all...)
	for _, direction := range []traversal.Direction{traversal.In, traversal.Out, traversal.Both} {
		for _, limit := range []int{1, 7, 200} {
			require.NotEmpty(w, w.neighbors(w.id("hub"), traversal.Filter{Direction: direction}, limit))
		}
	}
	w.neighbors(w.id("hub"), traversal.Filter{Types: traversal.EdgeTypes[1:3]}, 3)
	w.hide(0, true) // hides all of it: pages may be empty, and still come to an end
	require.Empty(w, w.neighbors(w.id("hub"), traversal.Filter{}, 2))
}

func cycles(w *world) {
	w.write(
		w.subgraph(w.key("a"), w.edge(traversal.References, "a", "b"), w.edge(traversal.References, "a", "a")),
		w.subgraph(w.key("b"), w.edge(traversal.References, "b", "c"), w.edge(traversal.GraphEdge, "b", "a"), w.edge(traversal.GraphEdge, "b", "a")),
		w.subgraph(w.key("c"), w.edge(traversal.References, "c", "a"), w.edge(traversal.SubtypeOf, "c", "c")))
	for _, direction := range []traversal.Direction{traversal.In, traversal.Out, traversal.Both} {
		f := traversal.Filter{Direction: direction}
		for _, from := range []string{"a", "b", "c"} {
			w.neighbors(w.id(from), f, 1)
			for depth := 1; depth <= traversal.MaxDepth; depth++ {
				w.neighborhood(w.id(from), f, depth)
			}
			for _, to := range []string{"a", "b", "c"} {
				w.path(w.id(from), w.id(to), f, 10)
			}
		}
	}
	require.Equal(w, 0, w.path(w.id("a"), w.id("a"), traversal.Filter{}, 10).Hops)
}

func danglingEnds(w *world) {
	w.record("a", w.edge(traversal.References, "a", "gone"))
	w.record("b", w.edge(traversal.References, "b", "gone"))
	found := w.neighbors(w.id("a"), traversal.Filter{}, 10)
	require.True(w, found[0].Node.Dangling)
	require.Len(w, w.neighbors(w.id("gone"), traversal.Filter{}, 10), 2, "who refers to what is not there")
	require.Len(w, w.neighborhood(w.id("a"), traversal.Filter{}, 5).Nodes, 2)
	require.False(w, w.path(w.id("a"), w.id("b"), traversal.Filter{}, 10).Found, "nothing leads through what is not there")
	require.True(w, w.path(w.id("a"), w.id("gone"), traversal.Filter{}, 10).Found)
	require.True(w, w.path(w.id("gone"), w.id("b"), traversal.Filter{}, 10).Found)

	w.record("gone") // it arrives
	w.record("a", w.edge(traversal.References, "a", "gone"))
	require.False(w, w.neighbors(w.id("a"), traversal.Filter{}, 10)[0].Node.Dangling)
	require.Equal(w, 2, w.path(w.id("a"), w.id("b"), traversal.Filter{}, 10).Hops)
	web := graph.Edge{Type: traversal.References, From: graph.Record(w.key("a")), To: graph.External("https://example.org/" + w.name), Properties: map[string]any{}}
	w.record("a", web)
	require.False(w, w.neighbors(w.id("a"), traversal.Filter{}, 10)[0].Node.Dangling, "only records are ever awaited")
	require.Len(w, w.neighbors(web.To.ID(), traversal.Filter{}, 10), 1)
}

func hiddenAccounts(w *world) {
	theirs := w.keyOf(1, graphNodes, "theirs")
	link := graph.Edge{Type: traversal.GraphEdge, From: graph.Record(w.key("a")), To: graph.Record(w.key("z")), Properties: map[string]any{}}
	w.write(
		w.subgraph(w.key("a"), graph.Edge{Type: traversal.References, From: graph.Record(w.key("a")), To: graph.Record(theirs), Properties: map[string]any{}}),
		w.subgraph(theirs, graph.Edge{Type: traversal.References, From: graph.Record(theirs), To: graph.Record(w.key("z")), Properties: map[string]any{}},
			graph.Edge{Type: traversal.KnowledgeRef, From: graph.Record(theirs), To: graph.Knowledge("wikidata", w.name), Properties: map[string]any{"label": "theirs"}}),
		w.subgraph(w.keyOf(1, graphNodes, "link"), link),
		w.subgraph(w.key("z")))
	look := func() {
		for _, id := range []traversal.ID{w.id("a"), traversal.OfRecord(theirs), w.id("z"), traversal.OfKnowledge("wikidata", w.name)} {
			w.neighbors(id, traversal.Filter{}, 1)
			w.neighborhood(id, traversal.Filter{}, 3)
			w.path(w.id("a"), id, traversal.Filter{}, 10)
			w.path(id, w.id("z"), traversal.Filter{}, 10)
		}
	}
	look()
	require.Equal(w, 1, w.path(w.id("a"), w.id("z"), traversal.Filter{}, 10).Hops)
	w.hide(1, true)
	look()
	require.False(w, w.path(w.id("a"), w.id("z"), traversal.Filter{}, 10).Found, "neither through hidden records nor along what they state")
	require.Empty(w, w.neighbors(w.id("a"), traversal.Filter{}, 10)[0].Node.Label)
	grounded, err := w.Graph.Grounded(w.Context(), "", w.name, traversal.Page{})
	require.NoError(w, err)
	require.Empty(w, grounded.Neighbors)
	w.hide(1, false)
	look()
	require.True(w, w.path(w.id("a"), w.id("z"), traversal.Filter{}, 10).Found)
}

func changes(w *world) {
	w.record("a", w.edge(traversal.References, "a", "b"), w.edge(traversal.GraphEdge, "b", "c"))
	stale := w.subgraph(w.key("a"), w.edge(traversal.References, "a", "b"))
	stale.Version = w.version
	w.record("b")
	w.record("a", w.edge(traversal.References, "a", "d"))
	look := func() {
		for _, name := range []string{"a", "b", "c", "d"} {
			w.neighbors(w.id(name), traversal.Filter{}, 10)
			w.neighborhood(w.id(name), traversal.Filter{}, 2)
		}
	}
	look()
	require.Empty(w, w.neighbors(w.id("b"), traversal.Filter{}, 10), "an update leaves no old edge")
	require.NoError(w, w.Write(w.Context(), []graph.Subgraph{stale}))
	look()
	w.delete(w.key("a"))
	look()
	require.Empty(w, w.neighbors(w.id("d"), traversal.Filter{}, 10), "nor does a deletion")
	require.NoError(w, w.Write(w.Context(), []graph.Subgraph{stale}))
	look()
	w.record("a", w.edge(traversal.References, "a", "b"))
	look()
}

func longNames(w *world) {
	long := graph.External("https://example.org/" + w.name + "/" + strings.Repeat("x", 7000))
	other := graph.External("https://example.org/" + w.name + "/" + strings.Repeat("x", 6999) + "y")
	e := func(from, to graph.Node) graph.Edge {
		return graph.Edge{Type: traversal.References, From: from, To: to, Properties: map[string]any{"label": "it's \x00 a \"name\""}}
	}
	w.record("a", e(graph.Record(w.key("a")), long), e(long, other), e(other, graph.Record(w.key("b"))))
	w.record("b")
	for _, id := range []traversal.ID{w.id("a"), long.ID(), other.ID(), w.id("b")} {
		require.NotEmpty(w, w.neighbors(id, traversal.Filter{}, 1))
		w.neighborhood(id, traversal.Filter{}, 3)
	}
	require.Equal(w, 3, w.path(w.id("a"), w.id("b"), traversal.Filter{}, 10).Hops)
}

func refusals(w *world) {
	ctx := w.Context()
	refused := func(err error, parameter string) {
		w.Helper()
		var invalid *traversal.InvalidError
		require.ErrorAs(w, err, &invalid)
		require.Equal(w, parameter, invalid.Parameter)
	}
	a := w.id("a")
	neighbors := func(id traversal.ID, f traversal.Filter, p traversal.Page) error {
		_, err := w.Graph.Neighbors(ctx, id, f, p)
		return err
	}
	refused(neighbors(traversal.Of(""), traversal.Filter{}, traversal.Page{}), "uri")
	refused(neighbors(traversal.Of("https://example.org/\x00"), traversal.Filter{}, traversal.Page{}), "uri")
	refused(neighbors(traversal.Of("https://example.org/\xff"), traversal.Filter{}, traversal.Page{}), "uri")
	refused(neighbors(traversal.Of(strings.Repeat("x", 10_000)), traversal.Filter{}, traversal.Page{}), "uri")
	refused(neighbors(a, traversal.Filter{Direction: "up"}, traversal.Page{}), "direction")
	refused(neighbors(a, traversal.Filter{Types: []traversal.EdgeType{"]-() DETACH DELETE n //"}}, traversal.Page{}), "edge_type")
	refused(neighbors(a, traversal.Filter{Collection: "'; DROP TABLE relations; --"}, traversal.Page{}), "type")
	refused(neighbors(a, traversal.Filter{}, traversal.Page{Limit: traversal.MaxNeighbors + 1}), "limit")
	refused(neighbors(a, traversal.Filter{}, traversal.Page{Limit: -1}), "limit")
	refused(neighbors(a, traversal.Filter{}, traversal.Page{Cursor: "no cursor"}), "cursor")
	w.record("a", w.edge(traversal.References, "a", "b"), w.edge(traversal.References, "a", "c"))
	page, err := w.Graph.Neighbors(ctx, a, traversal.Filter{}, traversal.Page{Limit: 1})
	require.NoError(w, err)
	refused(neighbors(w.id("b"), traversal.Filter{}, traversal.Page{Cursor: page.Cursor}), "cursor")
	_, err = w.Graph.Neighborhood(ctx, a, traversal.Filter{}, traversal.Reach{Depth: traversal.MaxDepth + 1})
	refused(err, "depth")
	_, err = w.Graph.Neighborhood(ctx, a, traversal.Filter{}, traversal.Reach{Limit: traversal.MaxNodes + 1})
	refused(err, "limit")
	_, err = w.Graph.Path(ctx, a, traversal.Of(""), traversal.Filter{}, 0)
	refused(err, "to")
	_, err = w.Graph.Path(ctx, a, a, traversal.Filter{}, traversal.MaxHops+1)
	refused(err, "max_hops")
	_, err = w.Graph.Grounded(ctx, "wikidata", "", traversal.Page{})
	refused(err, "knowledge")
}

func deadlines(w *world) {
	w.chain("a", "b")
	over, cancel := context.WithDeadline(w.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := w.Graph.Neighbors(over, w.id("a"), traversal.Filter{}, traversal.Page{})
	require.ErrorIs(w, err, traversal.ErrDeadline)
	require.ErrorIs(w, err, context.DeadlineExceeded)
	_, err = w.Graph.Path(over, w.id("a"), w.id("b"), traversal.Filter{}, 0)
	require.ErrorIs(w, err, traversal.ErrDeadline)
	left, leave := context.WithCancel(w.Context())
	leave()
	_, err = w.Graph.Neighborhood(left, w.id("a"), traversal.Filter{}, traversal.Reach{})
	require.ErrorIs(w, err, context.Canceled)
	require.NotErrorIs(w, err, traversal.ErrDeadline)
}
