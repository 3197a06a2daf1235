package traversaltest

import (
	"fmt"
	"math/rand/v2"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

func depths(w *world) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	w.chain(names...)
	for depth := 1; depth <= traversal.MaxDepth; depth++ {
		part := w.neighborhood(w.id("a"), traversal.Filter{}, depth)
		require.Len(w, part.Nodes, depth+1)
		require.Equal(w, depth, part.Nodes[depth].Depth)
	}
	require.Len(w, w.neighborhood(w.id("d"), traversal.Filter{Direction: traversal.In}, 5).Nodes, 4)
	require.Len(w, w.neighborhood(w.id("d"), traversal.Filter{Direction: traversal.Out}, 2).Nodes, 3)
}

func hops(w *world) {
	var names []string
	for i := range 13 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	w.chain(names...)
	for n := 1; n < len(names); n++ {
		forth := w.path(w.id(names[0]), w.id(names[n]), traversal.Filter{Direction: traversal.Out}, 10)
		require.Equal(w, n <= traversal.MaxHops, forth.Found, "%d hops", n)
		require.Equal(w, n <= traversal.MaxHops, w.path(w.id(names[n]), w.id(names[0]), traversal.Filter{}, 10).Found)
		require.False(w, w.path(w.id(names[n]), w.id(names[0]), traversal.Filter{Direction: traversal.Out}, 10).Found)
		require.False(w, w.path(w.id(names[0]), w.id(names[n]), traversal.Filter{Types: []traversal.EdgeType{traversal.Aligns}}, 10).Found)
		if n > 1 {
			require.False(w, w.path(w.id(names[0]), w.id(names[n]), traversal.Filter{}, min(n-1, 10)).Found)
		}
	}
	require.False(w, w.path(w.id(names[0]), w.id("nowhere"), traversal.Filter{}, 10).Found)
}

func caps(w *world) {
	var edges []graph.Edge
	for i := range 30 {
		edges = append(edges, w.edge(traversal.References, "hub", fmt.Sprintf("leaf%02d", i)))
	}
	for i := range 10 {
		edges = append(edges, w.edge(traversal.GraphEdge, fmt.Sprintf("leaf%02d", i), fmt.Sprintf("far%02d", i)))
	}
	w.record("hub", edges...)
	for i := range 30 {
		w.record(fmt.Sprintf("leaf%02d", i))
	}
	require.Len(w, w.neighborhood(w.id("hub"), traversal.Filter{}, 2).Nodes, 41)
	for _, limit := range []int{1, 2, 10, 31, 40} {
		part, err := w.Graph.Neighborhood(w.Context(), w.id("hub"), traversal.Filter{}, traversal.Reach{Depth: 2, Limit: limit})
		require.NoError(w, err)
		require.True(w, part.Truncated)
		require.Len(w, part.Nodes, limit)
		w.within(part)
	}
	part, err := w.Graph.Neighborhood(w.Context(), w.id("hub"), traversal.Filter{}, traversal.Reach{Depth: 2, Limit: 41})
	require.NoError(w, err)
	require.False(w, part.Truncated, "all of it is no less than all of it")

	many := make([]graph.Edge, 0, 60)
	for i := range cap(many) {
		e := w.edge(traversal.References, "many", "one")
		e.Properties["path"] = fmt.Sprint(i)
		many = append(many, e)
	}
	w.record("many", many...)
	part, err = w.Graph.Neighborhood(w.Context(), w.id("many"), traversal.Filter{}, traversal.Reach{Limit: 10})
	require.NoError(w, err)
	require.True(w, part.Truncated)
	require.Len(w, part.Edges, 50, "edges are bounded, too")
	w.within(part)
}

// within checks that all of a part is in the model, and that its edges' ends are in it.
func (w *world) within(part traversal.Part) {
	w.Helper()
	all := w.all(nil)
	var ids []traversal.ID
	for _, n := range part.Nodes {
		ids = append(ids, n.ID)
		want := w.node(n.ID)
		want.Depth, want.Label = n.Depth, n.Label
		require.Equal(w, want, n)
	}
	require.Contains(w, ids, part.Root.ID)
	for _, e := range part.Edges {
		e.Place = 0
		require.Contains(w, all, e)
		require.Contains(w, ids, e.From)
		require.Contains(w, ids, e.To)
	}
}

func hierarchies(w *world) {
	key := func(name string) record.Key { return w.keyOf(0, expressions, name) }
	part := func(parent, child string) graph.Edge {
		return graph.Edge{Type: traversal.ParentOf, From: graph.Record(key(parent)), To: graph.Record(key(child)), Properties: map[string]any{}}
	}
	w.write(w.subgraph(key("book")), w.subgraph(key("chapter"), part("book", "chapter")), w.subgraph(key("appendix"), part("book", "appendix")),
		w.subgraph(key("verse"), part("chapter", "verse")), w.subgraph(key("word"), part("verse", "word")))
	names := func(part traversal.Part) (out []string) {
		for _, n := range part.Nodes {
			out = append(out, fmt.Sprintf("%d %s", n.Depth, n.URI[len(n.URI)-4:]))
		}
		return out
	}
	id := func(name string) traversal.ID { return traversal.OfRecord(key(name)) }
	require.Equal(w, []string{"0 erse", "1 pter", "2 book"}, names(w.whole(w.Graph.Ancestors(w.Context(), id("verse"), traversal.Reach{}))))
	require.Equal(w, []string{"0 pter", "1 erse", "2 word"}, names(w.whole(w.Graph.Descendants(w.Context(), id("chapter"), traversal.Reach{}))))
	require.Equal(w, []string{"0 book", "1 ndix", "1 pter"}, names(w.whole(w.Graph.Descendants(w.Context(), id("book"), traversal.Reach{Depth: 1}))))

	typ := func(name string) record.Key { return w.keyOf(0, typeDefs, name) }
	ontology := graph.Record(w.keyOf(0, ontologies, "onto"))
	uses := func(name string) graph.Edge {
		return graph.Edge{Type: traversal.UsesOntology, From: graph.Record(typ(name)), To: ontology, Properties: map[string]any{}}
	}
	sub := func(child, parent string) graph.Edge {
		return graph.Edge{Type: traversal.SubtypeOf, From: graph.Record(typ(child)), To: graph.Record(typ(parent)), Properties: map[string]any{}}
	}
	layer := w.keyOf(0, layers, "user")
	w.write(w.subgraph(w.keyOf(0, ontologies, "onto")), w.subgraph(typ("base")), w.subgraph(typ("noun"), uses("noun"), sub("noun", "base")),
		w.subgraph(typ("name"), uses("name"), sub("name", "noun")), w.subgraph(typ("verb"), uses("verb")),
		w.subgraph(layer, graph.Edge{Type: traversal.UsesOntology, From: graph.Record(layer), To: ontology, Properties: map[string]any{}}))
	require.Equal(w, []string{"-1 base", "0 noun", "1 name"}, names(w.whole(w.Graph.Types(w.Context(), traversal.OfRecord(typ("noun")), traversal.Reach{}))))
	require.Equal(w, []string{"-2 base", "0 onto", "1 name", "1 noun", "1 verb"},
		names(w.whole(w.Graph.OntologyTypes(w.Context(), ontology.ID(), typeDefs, traversal.Reach{}))))
}

func groundings(w *world) {
	ground := func(name, source, label string) graph.Edge {
		return graph.Edge{Type: traversal.KnowledgeRef, From: graph.Record(w.key(name)), To: graph.Knowledge(source, w.name), Properties: map[string]any{"label": label, "path": "knowledgeRefs[]"}}
	}
	for i := range 5 {
		name := fmt.Sprint("n", i)
		w.record(name, ground(name, "wikidata", "water"), ground(name, "wordnet", fmt.Sprint("sense ", i)))
	}
	w.record("similar", graph.Edge{Type: traversal.KnowledgeRef, From: graph.Record(w.key("similar")), To: graph.Knowledge("wikidata", w.name+"0"), Properties: map[string]any{}})
	for _, limit := range []int{1, 2, 3, 4, 5, 10, 100} {
		for _, source := range []string{"", "wikidata", "wordnet"} {
			var all []traversal.Neighbor
			cursor := ""
			for {
				page, err := w.Graph.Grounded(w.Context(), source, w.name, traversal.Page{Limit: limit, Cursor: cursor})
				require.NoError(w, err)
				require.LessOrEqual(w, len(page.Neighbors), limit)
				require.Len(w, page.Entries, map[bool]int{true: 2, false: 1}[source == ""])
				all = append(all, page.Neighbors...)
				if cursor = page.Cursor; cursor == "" {
					break
				}
			}
			var want []traversal.Neighbor
			for _, each := range []string{"wikidata", "wordnet"} {
				if source == "" || source == each {
					want = append(want, w.model.neighbors(traversal.OfKnowledge(each, w.name), traversal.Filter{})...)
				}
			}
			w.sameNeighbors(want, all)
		}
	}
	page, err := w.Graph.Grounded(w.Context(), "wikidata", w.name, traversal.Page{})
	require.NoError(w, err)
	require.Equal(w, "water", page.Entries[0].Label)
	page, err = w.Graph.Grounded(w.Context(), "", w.name+" unknown", traversal.Page{})
	require.NoError(w, err)
	require.Empty(w, page.Entries)
	require.Empty(w, page.Neighbors)
}

func lists(w *world) {
	member := w.edge(traversal.MemberOf, "text", "corpus")
	member.Properties["ordinal"] = int64(7)
	w.record("membership", member)
	w.record("text", w.edge(traversal.LinksEprint, "text", "paper"))
	w.record("corpus", w.edge(traversal.MemberOf, "corpus", "collection"))
	members, err := w.Graph.Members(w.Context(), w.id("corpus"), traversal.Page{})
	require.NoError(w, err)
	require.Len(w, members.Neighbors, 1)
	require.Equal(w, w.id("text"), members.Neighbors[0].Node.ID)
	require.Equal(w, map[string]any{"ordinal": int64(7)}, members.Neighbors[0].Edge.Properties)
	linked, err := w.Graph.LinkedToEprint(w.Context(), w.id("paper"), traversal.Page{})
	require.NoError(w, err)
	require.Len(w, linked.Neighbors, 1)
	require.Equal(w, w.id("text"), linked.Neighbors[0].Node.ID)
	require.True(w, linked.Root.Dangling)
}

// manyEdges has nodes with more edges than are read for one hop.
func manyEdges(w *world) {
	const edges = 20_500
	for _, hub := range []string{"hub", "other"} {
		var list []graph.Edge
		for i := range edges {
			list = append(list, w.edge(traversal.References, hub, fmt.Sprintf("%s-leaf%05d", hub, i)))
		}
		require.NoError(w, w.Write(w.Context(), []graph.Subgraph{func() graph.Subgraph { s := w.subgraph(w.key(hub), list...); s.Version = 1; return s }()}))
	}
	require.NoError(w, w.Write(w.Context(), []graph.Subgraph{
		func() graph.Subgraph {
			s := w.subgraph(w.key("hub-leaf20499"), w.edge(traversal.Aligns, "hub-leaf20499", "beyond"))
			s.Version = 1
			return s
		}(),
		func() graph.Subgraph { s := w.subgraph(w.key("beyond")); s.Version = 1; return s }(),
	}))
	page, err := w.Graph.Neighbors(w.Context(), w.id("hub"), traversal.Filter{}, traversal.Page{Limit: 3})
	require.NoError(w, err)
	for i := range 2 {
		require.Equal(w, w.id(fmt.Sprintf("hub-leaf%05d", i)), page.Neighbors[i].Node.ID)
	}
	page, err = w.Graph.Neighbors(w.Context(), w.id("hub"), traversal.Filter{}, traversal.Page{Limit: 3, Cursor: page.Cursor})
	require.NoError(w, err)
	require.Equal(w, w.id("hub-leaf00003"), page.Neighbors[0].Node.ID)

	part, err := w.Graph.Neighborhood(w.Context(), w.id("hub"), traversal.Filter{}, traversal.Reach{Depth: 5, Limit: 1000})
	require.NoError(w, err)
	require.True(w, part.Truncated)
	require.Len(w, part.Nodes, 1000)

	path, err := w.Graph.Path(w.Context(), w.id("hub"), w.id("beyond"), traversal.Filter{}, 10)
	require.NoError(w, err)
	require.Equal(w, 2, path.Hops, "the way is found from the other side")
	_, err = w.Graph.Path(w.Context(), w.id("hub"), w.id("other"), traversal.Filter{}, 10)
	var large *traversal.TooLargeError
	require.ErrorAs(w, err, &large, "whether there is a way is not known")
	path, err = w.Graph.Path(w.Context(), w.id("hub"), w.id("other"), traversal.Filter{Types: []traversal.EdgeType{traversal.Aligns}}, 10)
	require.NoError(w, err)
	require.False(w, path.Found)
}

// randomGraphs asks random questions of random graphs, while these change.
func randomGraphs(w *world) {
	random := rand.New(rand.NewPCG(5, 2))
	pick := func(n int) string { return fmt.Sprint("r", random.IntN(n)) }
	const records, accounts = 24, 3
	// Few, since a store may plan anew for each.
	typeSets := [][]traversal.EdgeType{nil, traversal.EdgeTypes[:3], traversal.EdgeTypes[4:9]}
	keyOf := func(name string) record.Key {
		var n int
		_, _ = fmt.Sscanf(name, "r%d", &n)
		return w.keyOf(n%accounts, graphNodes, name)
	}
	end := func() graph.Node {
		switch random.IntN(8) {
		case 0:
			return graph.Knowledge("wikidata", w.name+pick(4))
		case 1:
			return graph.External("https://example.org/" + w.name + "/" + pick(4))
		}
		return graph.Record(keyOf(pick(records)))
	}
	for round := range 8 {
		var batch []graph.Subgraph
		for i := range records {
			if round > 0 && random.IntN(4) > 0 {
				continue
			}
			key := keyOf(fmt.Sprint("r", i))
			if random.IntN(6) == 0 {
				batch = append(batch, graph.Subgraph{Key: key, Deleted: true})
				continue
			}
			s := w.subgraph(key)
			for range random.IntN(4) {
				e := graph.Edge{Type: traversal.EdgeTypes[random.IntN(len(traversal.EdgeTypes))], From: graph.Record(key), To: end(), Properties: map[string]any{}}
				if random.IntN(3) == 0 {
					e.From = end()
				}
				s.Edges = append(s.Edges, e)
			}
			batch = append(batch, s)
		}
		w.write(batch...)
		w.hide(random.IntN(accounts), random.IntN(2) == 0)
		for range 8 {
			f := traversal.Filter{Direction: []traversal.Direction{"", traversal.In, traversal.Out, traversal.Both}[random.IntN(4)]}
			f.Types = typeSets[random.IntN(len(typeSets))]
			root, to := end().ID(), end().ID()
			w.path(root, to, f, 1+random.IntN(10))
			if random.IntN(4) == 0 {
				f.Collection = graphNodes
			}
			w.neighbors(root, f, 1+random.IntN(6))
			w.neighborhood(root, f, 1+random.IntN(5))
		}
	}
}
