// Package traversaltest holds every store of the graph to the same answers, and these
// to those of a plain model in memory.
package traversaltest

import (
	"context"
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// Store is what is tested: an empty graph, and how it is filled.
type Store struct {
	Graph *traversal.Graph
	Write func(ctx context.Context, subgraphs []graph.Subgraph) error
	// Hide makes an account inactive, or active again, without any of its records being
	// projected anew.
	Hide func(ctx context.Context, did syntax.DID, hidden bool) error
}

// Run tests a store.
func Run(t *testing.T, s Store) {
	for name, test := range map[string]func(*world){
		"every relation": everyRelation, "directions and filters": directions, "pages": pages, "cycles and loops": cycles,
		"dangling ends": danglingEnds, "hidden accounts": hiddenAccounts, "changes": changes, "depths": depths, "hops": hops,
		"caps": caps, "hierarchies": hierarchies, "groundings": groundings, "lists": lists, "long names": longNames,
		"questions that make no sense": refusals, "deadlines": deadlines, "nodes with many edges": manyEdges, "random graphs": randomGraphs,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{T: t, Store: s, model: newModel(), name: compact(name)}
			test(w)
		})
	}
}

func compact(name string) (out string) {
	for _, r := range name {
		if 'a' <= r && r <= 'z' {
			out += string(r)
		}
	}
	return out
}

// world is a store with the model that it is compared with. Each test has accounts and
// names of its own, so that they can share a store.
type world struct {
	*testing.T
	Store
	*model
	name    string
	version int64
}

const (
	expressions = "pub.layers.expression.expression"
	layers      = "pub.layers.annotation.annotationLayer"
	graphNodes  = "pub.layers.graph.graphNode"
	typeDefs    = "pub.layers.ontology.typeDef"
	ontologies  = "pub.layers.ontology.ontology"
)

// account is one of the test's.
func (w *world) account(n int) syntax.DID {
	return syntax.DID(fmt.Sprintf("did:web:%s-%d.example", w.name, n))
}

// key is a record of the first account.
func (w *world) key(rkey string) record.Key { return w.keyOf(0, graphNodes, rkey) }

func (w *world) keyOf(account int, collection syntax.NSID, rkey string) record.Key {
	return record.Key{DID: w.account(account), Collection: collection, Rkey: syntax.RecordKey(rkey)}
}

func (w *world) id(rkey string) traversal.ID { return traversal.OfRecord(w.key(rkey)) }

// edge states an edge between records of the first account.
func (w *world) edge(t traversal.EdgeType, from, to string) graph.Edge {
	return graph.Edge{Type: t, From: graph.Record(w.key(from)), To: graph.Record(w.key(to)), Properties: map[string]any{}}
}

// write brings records up to a new version, in the store and in the model.
func (w *world) write(subgraphs ...graph.Subgraph) {
	w.Helper()
	for i := range subgraphs {
		w.version++
		subgraphs[i].Version = w.version
		w.set(subgraphs[i])
	}
	require.NoError(w, w.Write(w.Context(), subgraphs))
}

// record writes a record of the first account that is called what its key is.
func (w *world) record(rkey string, edges ...graph.Edge) {
	w.Helper()
	w.write(w.subgraph(w.key(rkey), edges...))
}

func (w *world) subgraph(key record.Key, edges ...graph.Edge) graph.Subgraph {
	return graph.Subgraph{Key: key, Labels: []string{"GraphNode"}, Properties: map[string]any{"label": "the " + string(key.Rkey)}, Edges: edges}
}

func (w *world) delete(keys ...record.Key) {
	w.Helper()
	var gone []graph.Subgraph
	for _, key := range keys {
		gone = append(gone, graph.Subgraph{Key: key, Deleted: true})
	}
	w.write(gone...)
}

func (w *world) hide(account int, hidden bool) {
	w.Helper()
	require.NoError(w, w.Hide(w.Context(), w.account(account), hidden))
	w.hidden[w.account(account)] = hidden
}

// chain writes records of which each refers to the next.
func (w *world) chain(names ...string) {
	w.Helper()
	var all []graph.Subgraph
	for i, name := range names {
		if i+1 < len(names) {
			all = append(all, w.subgraph(w.key(name), w.edge(traversal.References, name, names[i+1])))
		} else {
			all = append(all, w.subgraph(w.key(name)))
		}
	}
	w.write(all...)
}

// neighbors reads all pages, and compares them with the model.
func (w *world) neighbors(root traversal.ID, f traversal.Filter, limit int) []traversal.Neighbor {
	w.Helper()
	var all []traversal.Neighbor
	cursor := ""
	for {
		page, err := w.Graph.Neighbors(w.Context(), root, f, traversal.Page{Limit: limit, Cursor: cursor})
		require.NoError(w, err)
		want := w.node(root)
		if root.Kind == traversal.Knowledge {
			want.Label = page.Root.Label // what the edges of this page call it
		}
		require.Equal(w, want, page.Root)
		require.LessOrEqual(w, len(page.Neighbors), limit)
		all = append(all, page.Neighbors...)
		require.LessOrEqual(w, len(all), 100_000, "pages without end")
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	w.sameNeighbors(w.model.neighbors(root, f), all)
	return all
}

func (w *world) sameNeighbors(want, got []traversal.Neighbor) {
	w.Helper()
	seen := map[int64]bool{}
	for i := range got {
		require.False(w, seen[got[i].Edge.Place], "an edge is there twice: %v", got[i])
		seen[got[i].Edge.Place] = true
		got[i].Edge.Place = 0
	}
	require.Equal(w, order(want), order(got))
	require.ElementsMatch(w, want, got)
}

// order is what is promised of the order of neighbours.
func order(list []traversal.Neighbor) (out []string) {
	for _, n := range list {
		out = append(out, fmt.Sprint(n.Edge.Type, " ", n.Node.Name(), " ", n.In))
	}
	return out
}

// whole asks for a part of the graph that is small enough to be there whole.
func (w *world) whole(part traversal.Part, err error) traversal.Part {
	w.Helper()
	require.NoError(w, err)
	require.False(w, part.Truncated)
	for i := range part.Edges {
		part.Edges[i].Place = 0
	}
	return part
}

// neighborhood asks for a neighbourhood, and compares it with the model.
func (w *world) neighborhood(root traversal.ID, f traversal.Filter, depth int) traversal.Part {
	w.Helper()
	part := w.whole(w.Graph.Neighborhood(w.Context(), root, f, traversal.Reach{Depth: depth, Limit: traversal.MaxNodes}))
	want := w.model.neighborhood(root, f, depth)
	require.Equal(w, want.Nodes, part.Nodes)
	require.Equal(w, want.Root, part.Root)
	require.ElementsMatch(w, want.Edges, part.Edges)
	return part
}

// path asks for a path, checks that it is one, and that the model has none that is shorter.
func (w *world) path(from, to traversal.ID, f traversal.Filter, hops int) traversal.Path {
	w.Helper()
	path, err := w.Graph.Path(w.Context(), from, to, f, hops)
	require.NoError(w, err)
	want, found := w.distance(from, to, f)
	if !found || want > hops {
		require.False(w, path.Found, "%v", path)
		require.Empty(w, path.Nodes)
		require.Empty(w, path.Edges)
		require.Equal(w, hops, path.Hops)
		return path
	}
	require.True(w, path.Found, "there is a path of %d hops", want)
	require.Equal(w, want, path.Hops)
	require.Len(w, path.Nodes, want+1)
	require.Len(w, path.Edges, want)
	require.Equal(w, from, path.Nodes[0].ID)
	require.Equal(w, to, path.Nodes[want].ID)
	for i, e := range path.Edges {
		near, far := path.Nodes[i].ID, path.Nodes[i+1].ID
		forth, back := e.From == near && e.To == far, e.To == near && e.From == far
		switch f.Direction {
		case traversal.Out:
			require.True(w, forth)
		case traversal.In:
			require.True(w, back)
		default:
			require.True(w, forth || back)
		}
		e.Place = 0
		require.Contains(w, w.all(f.Types), e)
	}
	for i, n := range path.Nodes {
		want := w.node(n.ID)
		want.Depth, want.Label = i, n.Label
		require.Equal(w, want, n)
		require.False(w, n.Dangling && i > 0 && i < len(path.Nodes)-1, "nothing leads through %s", n.Name())
	}
	return path
}
