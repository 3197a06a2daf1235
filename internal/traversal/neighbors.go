package traversal

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Bounds of a list of neighbours.
const (
	DefaultNeighbors = 50
	MaxNeighbors     = 200
	maxRounds        = 5   // reads for one page, where much of it is not to be seen
	maxSources       = 100 // knowledge bases that use the same identifier
)

// Page asks for a part of a list.
type Page struct {
	Limit  int    // default [DefaultNeighbors], at most [MaxNeighbors]
	Cursor string // of the part before; empty for the first
}

// Neighbor is an edge of a node with what is at its other end.
type Neighbor struct {
	Edge Edge
	Node Node // the far end
	In   bool // the edge leads to the node that was asked about
}

// Neighbors are edges of a node. A node may be there several times, once for each edge.
type Neighbors struct {
	Root      Node
	Neighbors []Neighbor
	Cursor    string // of the next part; empty at the end
	Caveats
}

// Neighbors lists the edges of a node, in the order of their types and far ends. A
// node that nothing is known of has none. A part may be shorter than its limit
// although more follow.
func (g *Graph) Neighbors(ctx context.Context, root ID, filter Filter, page Page) (Neighbors, error) {
	if err := root.check("uri"); err != nil {
		return Neighbors{}, err
	}
	f, err := filter.complete()
	if err != nil {
		return Neighbors{}, err
	}
	list := &listing{question: digest("neighbors", root, f), filter: f}
	if list.limit, err = within("limit", page.Limit, DefaultNeighbors, MaxNeighbors); err != nil {
		return Neighbors{}, err
	}
	if list.after, err = decodeCursor(page.Cursor, list.question); err != nil {
		return Neighbors{}, err
	}
	var out Neighbors
	err = g.ask(ctx, func(ctx context.Context, r *reading) error {
		steps, next, err := list.read(ctx, r, root)
		if err != nil {
			return err
		}
		out, err = r.neighbors(ctx, root, steps)
		out.Cursor, out.Caveats = next, r.caveats
		return err
	})
	return out, err
}

// Members are the members of a corpus or a collection, with their memberships.
func (g *Graph) Members(ctx context.Context, whole ID, page Page) (Neighbors, error) {
	return g.Neighbors(ctx, whole, Filter{Direction: In, Types: []EdgeType{MemberOf}}, page)
}

// LinkedToEprint are the records that say which eprint they belong to.
func (g *Graph) LinkedToEprint(ctx context.Context, eprint ID, page Page) (Neighbors, error) {
	return g.Neighbors(ctx, eprint, Filter{Direction: In, Types: []EdgeType{LinksEprint}}, page)
}

// Grounding is an entry of a knowledge base, or several that have the same identifier
// in different ones, with what is grounded to it.
type Grounding struct {
	Entries   []Node // all of them; empty where nothing is grounded to the identifier
	Neighbors []Neighbor
	Cursor    string
	Caveats
}

// Grounded lists what refers to an entry of a knowledge base, entry by entry. An empty
// source means any knowledge base with the identifier.
func (g *Graph) Grounded(ctx context.Context, source, identifier string, page Page) (Grounding, error) {
	if identifier == "" {
		return Grounding{}, invalid("knowledge", "is to be an identifier, such as Q42")
	}
	list := &listing{question: digest("grounded", source, "\x00", identifier), filter: Filter{Direction: In, Types: []EdgeType{KnowledgeRef}}}
	var err error
	if list.limit, err = within("limit", page.Limit, DefaultNeighbors, MaxNeighbors); err != nil {
		return Grounding{}, err
	}
	start, err := decodeCursor(page.Cursor, list.question)
	if err != nil {
		return Grounding{}, err
	}
	var out Grounding
	err = g.ask(ctx, func(ctx context.Context, r *reading) error {
		list.after = start
		out = Grounding{}
		entries, err := r.entries(ctx, source, identifier)
		if err != nil {
			return err
		}
		steps, next, err := list.readAll(ctx, r, entries)
		if err != nil {
			return err
		}
		found, err := r.neighbors(ctx, ID{}, steps)
		if err != nil {
			return err
		}
		out.Neighbors, out.Cursor, out.Caveats = found.Neighbors, next, r.caveats
		out.Entries, err = r.describe(ctx, entries, edgesOf(steps))
		return err
	})
	return out, err
}

func (r *reading) entries(ctx context.Context, source, identifier string) ([]ID, error) {
	if source != "" {
		return []ID{OfKnowledge(source, identifier)}, nil
	}
	entries, err := r.view.Knowledge(ctx, identifier, maxSources+1)
	if err == nil && len(entries) > maxSources {
		err = &TooLargeError{Read: maxSources, Narrow: "name the knowledge base, too"}
	}
	return entries, err
}

// neighbors describes the far ends of steps.
func (r *reading) neighbors(ctx context.Context, root ID, steps []Step) (Neighbors, error) {
	ids := []ID{root}
	for _, s := range steps {
		ids = append(ids, s.Far())
	}
	nodes, err := r.describe(ctx, ids, edgesOf(steps))
	if err != nil {
		return Neighbors{}, err
	}
	out := Neighbors{Root: nodes[0], Neighbors: []Neighbor{}}
	for i, s := range steps {
		node := nodes[i+1]
		if node.ID != root {
			node.Depth = 1
		}
		out.Neighbors = append(out.Neighbors, Neighbor{Edge: s.Edge, Node: node, In: s.In})
	}
	return out, nil
}

func edgesOf(steps []Step) []Edge {
	edges := make([]Edge, len(steps))
	for i := range steps {
		edges[i] = steps[i].Edge
	}
	return edges
}

// listing reads the edges of nodes in order, from a cursor on.
type listing struct {
	question string
	filter   Filter
	limit    int
	after    *cursor
}

// readAll reads the edges of one node after the other.
func (l *listing) readAll(ctx context.Context, r *reading, nodes []ID) (steps []Step, next string, err error) {
	limit, from := l.limit, ""
	if l.after != nil {
		from = l.after.Node
	}
	for i, node := range nodes {
		if node.Name() < from {
			continue
		}
		if node.Name() != from {
			l.after = nil
		}
		l.limit = limit - len(steps)
		found, next, err := l.read(ctx, r, node)
		if err != nil {
			return nil, "", err
		}
		steps = append(steps, found...)
		if next != "" {
			return steps, next, nil
		}
		if len(steps) == limit && i+1 < len(nodes) { // the next begins with the node after
			return steps, cursor{Question: l.question, Node: nodes[i+1].Name(), Place: -1}.encode(), nil
		}
	}
	return steps, "", nil
}

// read reads a page of one node's edges that are to be seen.
func (l *listing) read(ctx context.Context, r *reading, node ID) (steps []Step, next string, err error) {
	after := l.after
	for range maxRounds {
		page, more, err := l.round(ctx, r, node, after, l.limit-len(steps))
		if err != nil {
			return nil, "", err
		}
		if more {
			last := page[len(page)-1]
			after = &cursor{Question: l.question, Node: node.Name(), Type: last.Type, Far: last.Far().Name(), In: last.In, Place: last.Place}
		}
		if page, err = r.visible(ctx, page); err != nil {
			return nil, "", err
		}
		steps = append(steps, page...)
		if !more {
			return steps, "", nil
		}
		if len(steps) >= l.limit {
			break
		}
	}
	return steps, after.encode(), nil
}

// round reads the next edges in both directions and merges them.
func (l *listing) round(ctx context.Context, r *reading, node ID, after *cursor, limit int) (page []Step, more bool, err error) {
	for _, in := range []bool{false, true} {
		if in && l.filter.Direction == Out || !in && l.filter.Direction == In {
			continue
		}
		steps, err := r.view.Incident(ctx, Incident{
			Node: node, In: in, Loops: l.filter.Direction == In, Filter: l.filter, After: after.position(in), Limit: limit + 1,
		})
		if err != nil {
			return nil, false, err
		}
		for i := range steps {
			steps[i].In = in
		}
		page = append(page, steps...)
	}
	slices.SortStableFunc(page, func(a, b Step) int {
		return cmp.Or(strings.Compare(string(a.Type), string(b.Type)), strings.Compare(a.Far().Name(), b.Far().Name()),
			compareBool(a.In, b.In), cmp.Compare(a.Place, b.Place))
	})
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
