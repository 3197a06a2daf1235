package rebuild

import (
	"context"
	"errors"
	"fmt"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
)

// Graph rebuilds the graph.
type Graph struct {
	catalog    *catalog.Catalog
	client     *graph.Client
	generation string
	next       *graph.Client
	filler     *graph.Filler
}

// NewGraph takes a client on which Ensure has been called.
func NewGraph(c *catalog.Catalog, client *graph.Client) *Graph {
	return &Graph{catalog: c, client: client}
}

// Target is the graph projection.
func (*Graph) Target() record.Target { return record.Graph }

// Open asks how far the generation is filled.
func (g *Graph) Open(ctx context.Context, generation string) (fresh bool, upTo record.Key, done int64, err error) {
	if g.next, err = g.client.Beside(generation); err != nil {
		return false, upTo, 0, err
	}
	upTo, done, err = g.next.Filled(ctx)
	g.generation, g.filler = generation, g.next.NewFiller(done == 0)
	return done == 0, upTo, done, err
}

type subgraphs struct {
	prepared graph.Prepared
	failures []Failure
}

// Project makes subgraphs, in the form that the server takes.
func (g *Graph) Project(records []Reading) any {
	out := &subgraphs{}
	list := make([]graph.Subgraph, 0, len(records))
	for _, rec := range records {
		sub, err := subgraphOf(rec)
		if err != nil {
			out.failures = append(out.failures, Failure{rec.Key, err})
			continue
		}
		list = append(list, sub)
	}
	out.prepared = g.filler.Prepare(list)
	return out
}

// subgraphOf is that of a deleted record where there is nothing to read.
func subgraphOf(rec Reading) (graph.Subgraph, error) {
	sub := graph.Subgraph{Key: rec.Key, Deleted: true}
	if rec.Decoded != nil {
		err := guarded(func() (err error) { sub, err = rec.Decoded.Subgraph(); return err })
		if err != nil {
			return sub, err
		}
	}
	sub.Version = rec.Version
	return sub, nil
}

// Fill makes nodes and edges.
func (g *Graph) Fill(ctx context.Context, projected any, upTo record.Key, done int64) ([]Failure, error) {
	batch := projected.(*subgraphs)
	return failed(batch.failures, g.filler.Fill(ctx, batch.prepared, upTo, done))
}

// Write brings subgraphs up to date.
func (g *Graph) Write(ctx context.Context, items []Item) ([]Failure, error) {
	var failures []Failure
	var list []graph.Subgraph
	for _, it := range items {
		sub, err := subgraphOf(it.read(g.catalog))
		if err != nil {
			failures = append(failures, Failure{it.Key, err})
			continue
		}
		list = append(list, sub)
	}
	return failed(failures, g.next.Write(ctx, list))
}

// failed adds what a server refused.
func failed(failures []Failure, err error) ([]Failure, error) {
	refused := (*record.WriteError)(nil)
	if !errors.As(err, &refused) {
		return failures, err
	}
	for _, f := range refused.Failures {
		if f.Retryable {
			return nil, fmt.Errorf("writing %s: %w", f.Key, f.Err)
		}
		failures = append(failures, Failure{f.Key, f.Err})
	}
	return failures, nil
}

// Promote moves the pointer.
func (g *Graph) Promote(ctx context.Context) error { return g.client.Promote(ctx, g.generation) }

// Discard deletes the generations that are not served.
func (g *Graph) Discard(ctx context.Context) error { return g.client.Abandon(ctx) }
