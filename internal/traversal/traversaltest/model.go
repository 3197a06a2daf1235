package traversaltest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// model answers the plainest way: by looking at every edge there is.
type model struct {
	records map[record.Key]graph.Subgraph
	hidden  map[syntax.DID]bool
}

func newModel() *model {
	return &model{records: map[record.Key]graph.Subgraph{}, hidden: map[syntax.DID]bool{}}
}

func (m *model) set(s graph.Subgraph) {
	if s.Deleted {
		delete(m.records, s.Key)
	} else {
		m.records[s.Key] = s
	}
}

// all are the edges that can be seen, of some types or of all.
func (m *model) all(types []traversal.EdgeType) (edges []traversal.Edge) {
	for key, s := range m.records {
		if m.hidden[key.DID] {
			continue
		}
		for _, e := range s.Stated() {
			if len(types) == 0 || slices.Contains(types, e.Type) {
				edges = append(edges, e)
			}
		}
	}
	return edges
}

func (m *model) dangling(id traversal.ID) bool {
	if id.Kind != traversal.Record {
		return false
	}
	for key := range m.records {
		if key.String() == id.URI && !m.hidden[key.DID] {
			return false
		}
	}
	return true
}

func (m *model) node(id traversal.ID) traversal.Node {
	n := traversal.Node{ID: id, Dangling: m.dangling(id)}
	for key, s := range m.records {
		if key.String() == id.URI && !n.Dangling {
			n.Label = traversal.Label(s.Properties)
		}
	}
	return n
}

// way is an edge as seen from one of its ends.
type way struct {
	edge      traversal.Edge
	near, far traversal.ID
	in        bool
}

// ways are the edges of a node.
func (m *model) ways(near traversal.ID, f traversal.Filter, edges []traversal.Edge) (ways []way) {
	for _, e := range edges {
		if e.From == near && f.Direction != traversal.In {
			ways = append(ways, way{e, near, e.To, false})
		}
		if e.To == near && (f.Direction == traversal.In || f.Direction != traversal.Out && e.From != near) {
			ways = append(ways, way{e, near, e.From, true})
		}
	}
	return slices.DeleteFunc(ways, func(w way) bool { return f.Collection != "" && w.far.Collection() != f.Collection })
}

func (m *model) neighbors(root traversal.ID, f traversal.Filter) (out []traversal.Neighbor) {
	for _, w := range m.ways(root, f, m.all(f.Types)) {
		node := m.node(w.far)
		if w.far != root {
			node.Depth = 1
		}
		if label, ok := w.edge.Properties["label"].(string); ok && node.Kind == traversal.Knowledge {
			node.Label = label
		}
		out = append(out, traversal.Neighbor{Edge: w.edge, Node: node, In: w.in})
	}
	slices.SortStableFunc(out, func(a, b traversal.Neighbor) int {
		in := 0
		if a.In != b.In {
			in = map[bool]int{false: -1, true: 1}[a.In]
		}
		return cmp.Or(strings.Compare(string(a.Edge.Type), string(b.Edge.Type)), strings.Compare(a.Node.Name(), b.Node.Name()), in)
	})
	return out
}

// levels are the distances of all nodes that can be reached, and the edges that were
// followed to find out.
func (m *model) levels(root traversal.ID, f traversal.Filter, depth int) (map[traversal.ID]int, []traversal.Edge) {
	all := m.all(f.Types)
	level := map[traversal.ID]int{root: 0}
	var followed []traversal.Edge
	once := map[int]bool{}
	for hop := 1; hop <= depth; hop++ {
		for id, at := range level {
			if at != hop-1 || id != root && m.dangling(id) {
				continue
			}
			for i, e := range all {
				for _, w := range m.ways(id, f, []traversal.Edge{e}) {
					if !once[i] {
						once[i] = true
						followed = append(followed, e)
					}
					if _, met := level[w.far]; !met {
						level[w.far] = hop
					}
				}
			}
		}
	}
	return level, followed
}

func (m *model) neighborhood(root traversal.ID, f traversal.Filter, depth int) (out traversal.Part) {
	level, followed := m.levels(root, f, depth)
	out.Edges = followed
	for id, at := range level {
		n := m.node(id)
		n.Depth = at
		for _, e := range followed {
			if label, ok := e.Properties["label"].(string); ok && e.To == id && id.Kind == traversal.Knowledge && (n.Label == "" || label < n.Label) {
				n.Label = label
			}
		}
		if id == root {
			out.Root = n
		}
		out.Nodes = append(out.Nodes, n)
	}
	slices.SortFunc(out.Nodes, func(a, b traversal.Node) int {
		return cmp.Or(cmp.Compare(a.Depth, b.Depth), strings.Compare(a.Name(), b.Name()))
	})
	return out
}

// distance is the length of a shortest path.
func (m *model) distance(from, to traversal.ID, f traversal.Filter) (int, bool) {
	level, _ := m.levels(from, f, 12)
	d, ok := level[to]
	return d, ok
}
