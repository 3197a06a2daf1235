package traversal

import (
	"context"
	"slices"
	"strings"
)

// Bounds of a search for a path.
const (
	MaxHops    = 10
	pathRead   = 20_000 // edges that are read for one hop of one side
	pathKept   = 60_000 // nodes that both sides together may meet
	pathNarrow = "both ends have too many neighbours; name the edge types to follow, or fewer hops"
)

// Path is a shortest way from one node to another.
type Path struct {
	Found bool
	Nodes []Node // from the one to the other; empty where none is found
	Edges []Edge // one fewer; each may be followed against its direction, if Both is asked for
	Hops  int    // of the path; where none is found, the most that were looked for

	Caveats
}

// Path finds a shortest way of at most hops edges, by default [MaxHops], which is also
// the most. That there is none is an answer, too. A path does not lead through
// records that are not there. Of several shortest ways it is always the same one, as
// long as the graph stays as it is.
func (g *Graph) Path(ctx context.Context, from, to ID, filter Filter, hops int) (Path, error) {
	if err := from.check("from"); err != nil {
		return Path{}, err
	}
	if err := to.check("to"); err != nil {
		return Path{}, err
	}
	f, err := filter.complete()
	if err != nil {
		return Path{}, err
	}
	if f.Collection != "" {
		return Path{}, invalid("type", "cannot be asked of a path")
	}
	if hops, err = within("max_hops", hops, MaxHops, MaxHops); err != nil {
		return Path{}, err
	}
	var out Path
	err = g.ask(ctx, func(ctx context.Context, r *reading) error {
		s := &search{reading: r, a: newSide(from, f), b: newSide(to, Filter{Direction: f.Direction.reversed(), Types: f.Types})}
		steps, found, err := s.run(ctx, hops)
		if err != nil {
			return err
		}
		out = Path{Caveats: r.caveats, Found: found, Hops: hops, Nodes: []Node{}, Edges: []Edge{}}
		if !found {
			return nil
		}
		return out.fill(ctx, r, from, steps)
	})
	return out, err
}

// fill describes the path that steps make.
func (p *Path) fill(ctx context.Context, r *reading, from ID, steps []hop) (err error) {
	ids := []ID{from}
	for _, s := range steps {
		p.Edges = append(p.Edges, s.edge)
		ids = append(ids, s.to)
	}
	p.Hops = len(steps)
	if p.Nodes, err = r.describe(ctx, ids, p.Edges); err != nil {
		return err
	}
	for i := range p.Nodes {
		p.Nodes[i].Depth = i
	}
	return nil
}

// hop is an edge on the way to a node.
type hop struct {
	edge     Edge
	from, to ID
}

// side is what has been met from one end, in complete levels.
type side struct {
	filter   Filter
	met      map[ID]*hop // how each node was reached; nil for the end itself
	frontier []ID        // of the last level, those that can be followed on
	depth    int
	blocked  bool // the next level has too many edges to be read
}

func newSide(end ID, f Filter) *side {
	return &side{filter: f, met: map[ID]*hop{end: nil}, frontier: []ID{end}}
}

// search goes from both ends, level by level, until they meet. Each level is complete,
// or else is not used, so the first way that is found is a shortest one.
type search struct {
	*reading
	a, b *side
}

func (s *search) run(ctx context.Context, hops int) ([]hop, bool, error) {
	for end := range s.a.met {
		if _, same := s.b.met[end]; same {
			return nil, true, nil
		}
	}
	for s.a.depth+s.b.depth < hops {
		if len(s.a.frontier) == 0 || len(s.b.frontier) == 0 {
			return nil, false, nil
		}
		side, other := s.next()
		if side == nil {
			return nil, false, &TooLargeError{Read: pathRead, Narrow: pathNarrow}
		}
		meeting, found, err := s.level(ctx, side, other)
		if err != nil {
			return nil, false, err
		}
		if found {
			return s.way(meeting), true, nil
		}
	}
	return nil, false, nil
}

// next is the side to go on with: the one with less to follow. None where neither can be.
func (s *search) next() (side, other *side) {
	first, second := s.a, s.b
	if len(second.frontier) < len(first.frontier) {
		first, second = second, first
	}
	switch {
	case !first.blocked:
		return first, second
	case !second.blocked:
		return second, first
	}
	return nil, nil
}

// level goes one hop further on a side, and tells where it meets the other.
func (s *search) level(ctx context.Context, from, other *side) (meeting ID, found bool, err error) {
	steps, more, err := s.expand(ctx, from.frontier, from.filter, pathRead, pathRead)
	if err != nil {
		return ID{}, false, err
	}
	if more {
		from.blocked = true
		return ID{}, false, nil
	}
	slices.SortFunc(steps, func(a, b Step) int { return compareEdges(a.Edge, b.Edge) })
	from.depth++
	from.frontier = from.frontier[:0:0]
	for _, step := range steps {
		far := step.Far()
		if _, met := from.met[far]; met {
			continue
		}
		back, meets := other.met[far]
		if step.Dangling && (!meets || back != nil) {
			continue // nothing leads through it, and it is not the other end
		}
		from.met[far] = &hop{edge: step.Edge, from: step.Via, to: far}
		from.frontier = append(from.frontier, far)
		if meets && (!found || strings.Compare(far.Name(), meeting.Name()) < 0) {
			meeting, found = far, true
		}
	}
	if !found && len(s.a.met)+len(s.b.met) > pathKept {
		return ID{}, false, &TooLargeError{Read: pathKept, Narrow: pathNarrow}
	}
	return meeting, found, nil
}

// way puts the two halves together.
func (s *search) way(meeting ID) (hops []hop) {
	for at := s.a.met[meeting]; at != nil; at = s.a.met[at.from] {
		hops = append(hops, *at)
	}
	slices.Reverse(hops)
	for at := s.b.met[meeting]; at != nil; at = s.b.met[at.from] {
		hops = append(hops, hop{edge: at.edge, from: at.to, to: at.from})
	}
	return hops
}
