package graph_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
)

// BenchmarkWrite stores annotation layers of four edges each, in batches of 500,
// one batch an iteration. It reports what the server takes a second.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 2} {
		for _, again := range []bool{false, true} {
			b.Run(fmt.Sprintf("writers=%d/rewrite=%t", writers, again), func(b *testing.B) { benchmarkWrite(b, writers, again) })
		}
	}
}

func benchmarkWrite(b *testing.B, writers int, again bool) {
	client := graphtest.New(b)
	batches := make([][]graph.Subgraph, b.N)
	random := rand.New(rand.NewPCG(1, 1))
	edges := 0
	for i := range batches {
		for j := range 500 {
			batches[i] = append(batches[i], layer(random, fmt.Sprint("layer", i, "-", j)))
			edges += 4
		}
	}
	if again {
		store(b, client, writers, batches)
		for _, batch := range batches {
			for j := range batch {
				batch[j].Version++
				batch[j].Properties["rank"] = int64(2)
			}
		}
	}
	b.ResetTimer()
	store(b, client, writers, batches)
	b.StopTimer()
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(edges)/b.Elapsed().Seconds(), "edges/s")
}

// store writes the batches with so many writers at a time.
func store(b *testing.B, client *graph.Client, writers int, batches [][]graph.Subgraph) {
	b.Helper()
	queue := make(chan []graph.Subgraph, len(batches))
	for _, batch := range batches {
		queue <- batch
	}
	close(queue)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for batch := range queue {
				if err := client.Write(b.Context(), batch); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// layer is a record that refers to one of many expressions, one of few
// ontologies and personas, and an entry of a knowledge base.
func layer(random *rand.Rand, rkey string) graph.Subgraph {
	return graph.Subgraph{
		Key: key(rkey), Version: 1, Labels: []string{"AnnotationLayer"},
		Properties: map[string]any{
			"kind": "span", "subkind": "named-entity", "formalism": "universal-dependencies", "languages": []string{"en"},
			"createdAt": "2026-11-21T09:00:00.000Z", "rank": int64(1),
		},
		Edges: []graph.Edge{
			{Type: graph.Annotates, From: node(rkey), To: node(fmt.Sprint("expression", random.IntN(5000)))},
			{Type: graph.UsesOntology, From: node(rkey), To: node(fmt.Sprint("ontology", random.IntN(5)))},
			{Type: graph.ByPersona, From: node(rkey), To: node(fmt.Sprint("persona", random.IntN(20)))},
			{Type: graph.KnowledgeRef, From: node(rkey), To: graph.Knowledge("wikidata", fmt.Sprint("Q", random.IntN(100_000)))},
		},
	}
}
