package rebuild

import (
	"context"
	"errors"
	"fmt"

	"github.com/layers-pub/layers-appview/indexer/project"
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
func (g *Graph) Project(records []record.Record) any {
	out := &subgraphs{}
	list := make([]graph.Subgraph, 0, len(records))
	for i := range records {
		sub, err := g.subgraph(Item{Key: records[i].Key, Version: records[i].Version, Present: &records[i]})
		if err != nil {
			out.failures = append(out.failures, Failure{records[i].Key, err})
			continue
		}
		list = append(list, sub)
	}
	out.prepared = g.filler.Prepare(list)
	return out
}

func (g *Graph) subgraph(it Item) (graph.Subgraph, error) {
	sub := graph.Subgraph{Key: it.Key, Deleted: true}
	c, ok := g.catalog.Collection(it.Key.Collection)
	if it.Present != nil && ok {
		err := guarded(func() (err error) { sub, err = project.Subgraph(c, *it.Present); return err })
		if err != nil {
			return sub, err
		}
	}
	sub.Version = it.Version
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
		sub, err := g.subgraph(it)
		if err != nil {
			failures = append(failures, Failure{it.Key, err})
			continue
		}
		list = append(list, sub)
	}
	return failed(failures, g.next.Write(ctx, list))
}

// failed adds what the graph refused.
func failed(failures []Failure, err error) ([]Failure, error) {
	refused := (*graph.WriteError)(nil)
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
