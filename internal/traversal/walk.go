package traversal

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Bounds of a part of the graph.
const (
	MaxDepth     = 5    // of a neighbourhood
	MaxLevels    = 20   // of a hierarchy
	DefaultNodes = 200  // in an answer
	MaxNodes     = 1000 // in an answer
	edgesPerNode = 5    // in an answer, for each node that it may have
	minPerNode   = 100  // edges that are followed from each node, where those before have used up theirs
)

// Reach says how far to go.
type Reach struct {
	Depth int // hops; the default and the most depend on the question
	Limit int // nodes; default [DefaultNodes], at most [MaxNodes]
}

// Part is a part of the graph.
type Part struct {
	Root      Node
	Nodes     []Node // with the root, by depth, then name
	Edges     []Edge // between them, by type, then names
	Truncated bool   // more nodes or edges are within reach than are here
	Caveats
}

// Neighborhood is what is within some hops of a node; by default 1, at most [MaxDepth].
func (g *Graph) Neighborhood(ctx context.Context, root ID, filter Filter, reach Reach) (Part, error) {
	f, err := filter.complete()
	if err != nil {
		return Part{}, err
	}
	depth, err := within("depth", reach.Depth, 1, MaxDepth)
	if err != nil {
		return Part{}, err
	}
	return g.part(ctx, root, reach.Limit, func(ctx context.Context, w *walk) error {
		return w.from(ctx, []ID{root}, f, depth, 1)
	})
}

// Ancestors are the expressions that an expression is part of, at most [MaxLevels]
// levels up, which is the default.
func (g *Graph) Ancestors(ctx context.Context, expression ID, reach Reach) (Part, error) {
	return g.levels(ctx, expression, Filter{Direction: In, Types: []EdgeType{ParentOf}}, reach)
}

// Descendants are the parts of an expression, at most [MaxLevels] levels down, which
// is the default.
func (g *Graph) Descendants(ctx context.Context, expression ID, reach Reach) (Part, error) {
	return g.levels(ctx, expression, Filter{Direction: Out, Types: []EdgeType{ParentOf}}, reach)
}

func (g *Graph) levels(ctx context.Context, root ID, f Filter, reach Reach) (Part, error) {
	depth, err := within("depth", reach.Depth, MaxLevels, MaxLevels)
	if err != nil {
		return Part{}, err
	}
	return g.part(ctx, root, reach.Limit, func(ctx context.Context, w *walk) error {
		return w.from(ctx, []ID{root}, f, depth, 1)
	})
}

// Types is the hierarchy that a type stands in: the types above it with negative
// depths, those below it with positive ones.
func (g *Graph) Types(ctx context.Context, typeDef ID, reach Reach) (Part, error) {
	depth, err := within("depth", reach.Depth, MaxLevels, MaxLevels)
	if err != nil {
		return Part{}, err
	}
	return g.part(ctx, typeDef, reach.Limit, func(ctx context.Context, w *walk) error {
		if err := w.from(ctx, []ID{typeDef}, Filter{Direction: Out, Types: []EdgeType{SubtypeOf}}, depth, -1); err != nil {
			return err
		}
		return w.from(ctx, []ID{typeDef}, Filter{Direction: In, Types: []EdgeType{SubtypeOf}}, depth, 1)
	})
}

// OntologyTypes are the records of a collection, that of type definitions, which use
// an ontology, with what is between them: their depth is 1, and that of types of
// other ontologies above them negative.
func (g *Graph) OntologyTypes(ctx context.Context, ontology ID, collection syntax.NSID, reach Reach) (Part, error) {
	depth, err := within("depth", reach.Depth, MaxLevels, MaxLevels)
	if err != nil {
		return Part{}, err
	}
	return g.part(ctx, ontology, reach.Limit, func(ctx context.Context, w *walk) error {
		if err := w.from(ctx, []ID{ontology}, Filter{Direction: In, Types: []EdgeType{UsesOntology}, Collection: collection}, 1, 1); err != nil {
			return err
		}
		types := slices.DeleteFunc(slices.Clone(w.order), func(id ID) bool { return id == ontology || w.nodes[id].dangling })
		return w.from(ctx, types, Filter{Direction: Out, Types: []EdgeType{SubtypeOf}}, depth, -1)
	})
}

// part runs a walk from a root and describes what it has met.
func (g *Graph) part(ctx context.Context, root ID, limit int, do func(context.Context, *walk) error) (Part, error) {
	if err := root.check("uri"); err != nil {
		return Part{}, err
	}
	limit, err := within("limit", limit, DefaultNodes, MaxNodes)
	if err != nil {
		return Part{}, err
	}
	var out Part
	err = g.ask(ctx, func(ctx context.Context, r *reading) error {
		w := &walk{reading: r, maxNodes: limit, maxEdges: limit * edgesPerNode, nodes: map[ID]visit{root: {}}, order: []ID{root}, edges: map[int64]Edge{}}
		if err := do(ctx, w); err != nil {
			return err
		}
		out, err = w.part(ctx)
		return err
	})
	return out, err
}

// walk is a breadth-first search that stops at so many nodes and edges.
type walk struct {
	*reading
	maxNodes, maxEdges int
	nodes              map[ID]visit
	order              []ID // as they were met, the root first
	edges              map[int64]Edge
	truncated          bool
}

type visit struct {
	depth    int
	dangling bool
}

// from goes so many hops from nodes that are met already; sign is that of the depths.
func (w *walk) from(ctx context.Context, frontier []ID, f Filter, depth, sign int) error {
	for hop := 1; hop <= depth && len(frontier) > 0; hop++ {
		limit := w.wanted(frontier)
		perNode := max(minPerNode, limit/len(frontier))
		steps, more, err := w.expand(ctx, frontier, f, perNode, limit)
		if err != nil {
			return err
		}
		w.truncated = w.truncated || more
		slices.SortFunc(steps, func(a, b Step) int { return compareEdges(a.Edge, b.Edge) })
		frontier = w.take(steps, sign)
	}
	return nil
}

// stepsPerNode are the steps that are read for each node which there is still room for:
// some lead to the same one.
const stepsPerNode = 3

// wanted is how many steps to read from nodes: those that are known already come again,
// which leaves the room that there is.
func (w *walk) wanted(frontier []ID) int {
	from := make(map[ID]bool, len(frontier))
	for _, id := range frontier {
		from[id] = true
	}
	again := 0
	for _, e := range w.edges {
		if from[e.From] {
			again++
		}
		if from[e.To] {
			again++
		}
	}
	room := max(minPerNode, stepsPerNode*(w.maxNodes-len(w.nodes)))
	return again + min(room, 2*(w.maxEdges-len(w.edges))) // each new edge may come from both ends
}

// take adds steps to the walk, and returns the nodes that are new and can be followed on.
func (w *walk) take(steps []Step, sign int) (next []ID) {
	for _, s := range steps {
		far := s.Far()
		_, known := w.edges[s.Place]
		_, met := w.nodes[far]
		if !known && len(w.edges) == w.maxEdges || !met && len(w.nodes) == w.maxNodes {
			w.truncated = true
			continue
		}
		w.edges[s.Place] = s.Edge
		if met {
			continue
		}
		w.nodes[far] = visit{depth: sign * (abs(w.nodes[s.Via].depth) + 1), dangling: s.Dangling}
		w.order = append(w.order, far)
		if !s.Dangling {
			next = append(next, far)
		}
	}
	return next
}

func abs(n int) int { return max(n, -n) }

// part is what the walk has met.
func (w *walk) part(ctx context.Context) (Part, error) {
	out := Part{Truncated: w.truncated, Caveats: w.caveats, Edges: make([]Edge, 0, len(w.edges))}
	for _, e := range w.edges {
		out.Edges = append(out.Edges, e)
	}
	slices.SortFunc(out.Edges, compareEdges)
	nodes, err := w.describe(ctx, w.order, out.Edges)
	if err != nil {
		return Part{}, err
	}
	for i := range nodes {
		nodes[i].Depth = w.nodes[nodes[i].ID].depth
	}
	out.Root, out.Nodes = nodes[0], nodes
	slices.SortFunc(out.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.Depth, b.Depth), strings.Compare(a.Name(), b.Name()))
	})
	return out, nil
}

func compareEdges(a, b Edge) int {
	return cmp.Or(strings.Compare(string(a.Type), string(b.Type)), strings.Compare(a.From.Name(), b.From.Name()),
		strings.Compare(a.To.Name(), b.To.Name()), strings.Compare(a.Stated, b.Stated), cmp.Compare(a.Place, b.Place))
}
