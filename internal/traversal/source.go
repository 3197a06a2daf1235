package traversal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Source is a store that holds the graph.
type Source interface {
	// Begin opens a view for one question. Its context ends before the view does.
	Begin(ctx context.Context) (View, error)
}

// View is what a store answers within one question. Filters have a direction, and at
// least one type, all of which exist. A store need not know who is inactive when it
// gives steps: their accounts are asked for afterwards.
type View interface {
	// Incident are the edges of a node in one direction, In or Out, in the order of
	// type, the far end's name, and place, that come after a position. An edge from the
	// node to itself is Out alone, if Both is set.
	Incident(ctx context.Context, q Incident) ([]Step, error)
	// Expand are edges of several nodes, in any order: at most perNode of each and limit
	// in all. An edge between two of the nodes is there for each of them.
	Expand(ctx context.Context, nodes []ID, f Filter, perNode, limit int) ([]Step, error)
	// Knowledge are the entries with an identifier, in the order of their names.
	Knowledge(ctx context.Context, identifier string, limit int) ([]ID, error)
	// Nodes describes nodes. Those that are not mentioned are records that are not there.
	Nodes(ctx context.Context, ids []ID) (map[ID]Node, error)
	// Filling tells whether the store is being filled, so that it may lack edges.
	Filling(ctx context.Context) (bool, error)
	// Inactive tells which accounts are not to be seen.
	Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error)
	// End closes the view. It tells whether what was seen cannot be relied on, so that
	// the question has to be asked again.
	End(ctx context.Context) (stale bool, err error)
}

// Incident asks for a page of a node's edges.
type Incident struct {
	Node  ID
	In    bool
	Loops bool // with In: also those from the node to itself
	Filter
	After *Position
	Limit int
}

// Position is a place in the order of a node's edges.
type Position struct {
	Type  EdgeType
	Far   string // name of the far end
	Place int64
}

// Step is an edge as it was followed.
type Step struct {
	Edge
	Via      ID   // the end that it was followed from
	Dangling bool // the far end is a record that is not there
	In       bool // it was listed among the edges into Via; for [Graph] alone
}

// Far is the other end.
func (s Step) Far() ID {
	if s.Via == s.From {
		return s.To
	}
	return s.From
}

// Graph answers questions from a [Source]. It is safe for concurrent use.
type Graph struct {
	source, fallback Source
	avoid            atomic.Int64 // the source, until this time in ns: it was away just now
}

// Caveats say what an answer may lack.
type Caveats struct {
	Degraded   bool // it is the fallback's, see [NewWithFallback]
	Incomplete bool // the store is being filled for the first time, or again, and may lack records
}

// New makes a graph of a source.
func New(source Source) *Graph { return &Graph{source: source} }

// NewWithFallback makes a graph of a source, and of another one that answers while the
// first is away. Such answers are Degraded: what they are taken from may be behind.
func NewWithFallback(source, fallback Source) *Graph {
	return &Graph{source: source, fallback: fallback}
}

const (
	maxTime = 15 * time.Second // for a question whose context has no earlier deadline
	tries   = 3                // where the graph is replaced meanwhile
)

var errReplaced = fmt.Errorf("%w: it was replaced again and again while it was read", ErrUnavailable)

// ask runs a question in a view, and again where that was stale.
func (g *Graph) ask(ctx context.Context, question func(context.Context, *reading) error) error {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	for range tries {
		stale, err := g.once(ctx, question)
		if err != nil {
			return explain(ctx, err)
		}
		if !stale {
			return nil
		}
	}
	return errReplaced
}

func (g *Graph) once(ctx context.Context, question func(context.Context, *reading) error) (stale bool, err error) {
	if g.fallback == nil {
		return askOf(ctx, g.source, false, question)
	}
	if time.Now().UnixNano() >= g.avoid.Load() {
		stale, err = g.first(ctx, question)
		var invalid *InvalidError
		var large *TooLargeError
		if err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &invalid) || errors.As(err, &large) {
			return stale, err
		}
		g.avoid.Store(time.Now().Add(avoidTime).UnixNano())
	}
	return askOf(ctx, g.fallback, true, question)
}

const (
	avoidTime = 2 * time.Second // before a source that was away is asked again
	firstTime = time.Second     // in which a source with a fallback has to begin
)

var errSlow = fmt.Errorf("%w: its store does not answer", ErrUnavailable)

// first asks the source, which must begin soon enough for the fallback to have time.
func (g *Graph) first(ctx context.Context, question func(context.Context, *reading) error) (stale bool, err error) {
	beginning, giveUp := context.WithCancelCause(ctx) // has the deadline of ctx still, for the store to know
	defer giveUp(nil)
	timer := time.AfterFunc(firstTime, func() { giveUp(errSlow) })
	view, err := g.source.Begin(beginning)
	timer.Stop()
	if err != nil {
		if context.Cause(beginning) == errSlow { //nolint:errorlint // the cause itself
			return false, errSlow
		}
		return false, err
	}
	return answer(ctx, view, false, question)
}

func askOf(ctx context.Context, source Source, degraded bool, question func(context.Context, *reading) error) (stale bool, err error) {
	view, err := source.Begin(ctx)
	if err != nil {
		return false, err
	}
	return answer(ctx, view, degraded, question)
}

// answer runs a question in a view and closes that.
func answer(ctx context.Context, view View, degraded bool, question func(context.Context, *reading) error) (stale bool, err error) {
	filling, err := view.Filling(ctx)
	if err == nil {
		err = question(ctx, &reading{view: view, caveats: Caveats{Degraded: degraded, Incomplete: filling}, inactive: map[syntax.DID]bool{}})
	}
	stale, ended := view.End(ctx)
	return stale && err == nil, errors.Join(err, ended)
}

// reading is a view that leaves out what is not to be seen.
type reading struct {
	view     View
	caveats  Caveats
	inactive map[syntax.DID]bool // by account, as far as they have been asked for
}

// know asks for the accounts of nodes and stated edges that are not known yet.
func (r *reading) know(ctx context.Context, dids []syntax.DID) error {
	var unknown []syntax.DID
	for _, did := range dids {
		if _, known := r.inactive[did]; !known && did != "" {
			r.inactive[did] = false
			unknown = append(unknown, did)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	inactive, err := r.view.Inactive(ctx, unknown)
	if err != nil {
		return err
	}
	for did := range inactive {
		r.inactive[did] = inactive[did]
	}
	return nil
}

// visible leaves out the steps that inactive accounts state, and marks the ends of
// others that are such accounts' records.
func (r *reading) visible(ctx context.Context, steps []Step) ([]Step, error) {
	var dids []syntax.DID
	for i := range steps {
		dids = append(dids, repoOf(steps[i].Stated), steps[i].From.DID(), steps[i].To.DID())
	}
	if err := r.know(ctx, dids); err != nil {
		return nil, err
	}
	kept := steps[:0]
	for _, s := range steps {
		if r.inactive[repoOf(s.Stated)] {
			continue
		}
		s.Dangling = s.Dangling || r.inactive[s.Far().DID()]
		kept = append(kept, s)
	}
	return kept, nil
}

// expand follows edges of several nodes. more tells that some were left out.
func (r *reading) expand(ctx context.Context, nodes []ID, f Filter, perNode, limit int) (steps []Step, more bool, err error) {
	if len(nodes) == 0 {
		return nil, false, nil
	}
	steps, err = r.view.Expand(ctx, nodes, f, perNode+1, limit+1)
	if err != nil {
		return nil, false, err
	}
	if len(steps) > limit {
		steps, more = steps[:limit], true
	}
	of := map[ID]int{}
	kept := steps[:0]
	for _, s := range steps {
		if of[s.Via]++; of[s.Via] > perNode {
			more = true
			continue
		}
		kept = append(kept, s)
	}
	kept, err = r.visible(ctx, kept)
	return kept, more, err
}

// describe are nodes as they are shown, in the order that is asked for.
func (r *reading) describe(ctx context.Context, ids []ID, edges []Edge) ([]Node, error) {
	var dids []syntax.DID
	for _, id := range ids {
		dids = append(dids, id.DID())
	}
	if err := r.know(ctx, dids); err != nil {
		return nil, err
	}
	known, err := r.view.Nodes(ctx, ids)
	if err != nil {
		return nil, err
	}
	labels := knowledgeLabels(edges)
	nodes := make([]Node, len(ids))
	for i, id := range ids {
		node, there := known[id]
		node.ID = id
		if id.Kind == Record && (!there || r.inactive[id.DID()]) {
			node.Dangling = true
		}
		if node.Dangling {
			node.Label = ""
		}
		if id.Kind == Knowledge {
			node.Label = labels[id]
		}
		nodes[i] = node
	}
	return nodes, nil
}

// knowledgeLabels are what the edges' records call the entries of knowledge bases:
// the first of different ones in the alphabet.
func knowledgeLabels(edges []Edge) map[ID]string {
	labels := map[ID]string{}
	for _, e := range edges {
		label, _ := e.Properties["label"].(string)
		if had, ok := labels[e.To]; e.Type == KnowledgeRef && label != "" && (!ok || label < had) {
			labels[e.To] = label
		}
	}
	return labels
}
