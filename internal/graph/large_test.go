package graph_test

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
)

// edgeSet is a record with n edges between nodes of its own that are not there.
func edgeSet(rkey string, version int64, n int) graph.Subgraph {
	set := subgraph(rkey, version)
	set.Labels = []string{"EdgeSet"}
	set.Properties = map[string]any{"version": version}
	for i := range n {
		set.Edges = append(set.Edges, graph.Edge{
			Type: graph.GraphEdge, From: node(fmt.Sprint(rkey, "-s", i)), To: node(fmt.Sprint(rkey, "-t", i)),
			Properties: map[string]any{"edge_type": "is-a", "ordinal": int64(i), "version": version},
		})
	}
	return set
}

// layerOf is a record with n edges from itself.
func layerOf(rkey string, version int64, n int) graph.Subgraph {
	s := subgraph(rkey, version)
	for i := range n {
		s.Edges = append(s.Edges, graph.Edge{
			Type: graph.KnowledgeRef, From: node(rkey), To: graph.Knowledge("wikidata", fmt.Sprint("Q", i)),
			Properties: map[string]any{"ordinal": int64(i), "version": version},
		})
	}
	return s
}

func byOrdinal(edges []graph.Edge) []graph.Edge {
	slices.SortFunc(edges, func(a, b graph.Edge) int {
		return cmp.Compare(a.Properties["ordinal"].(int64), b.Properties["ordinal"].(int64))
	})
	return edges
}

// A million bytes of edges, none of whose ends are there, must fit in the memory
// of a small server, also when they replace as many others.
func TestHugeEdgeSet(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	set := edgeSet("set", 1, 50_000)
	write(t, client, set, subgraph("small", 1), layerOf("layer", 1, 12_000))
	require.Equal(t, set.Edges, byOrdinal(edges(t, client, "set")))
	require.Len(t, get(t, client, "layer").Edges, 12_000)
	require.Equal(t, map[string]int64{key("set").String(): 1, key("small").String(): 1, key("layer").String(): 1}, scan(t, client))

	set = edgeSet("set", 2, 30_000)
	write(t, client, set, layerOf("layer", 2, 3))
	require.Equal(t, set.Edges, byOrdinal(edges(t, client, "set")))
	require.Equal(t, layerOf("layer", 2, 3).Edges, byOrdinal(edges(t, client, "layer")))
	require.Equal(t, map[string]any{"version": int64(2)}, get(t, client, "set").Properties)

	write(t, client, edgeSet("set", 1, 20_000)) // stale
	require.Len(t, get(t, client, "set").Edges, 30_000)
	write(t, client, deletion("set", 3), deletion("layer", 3))
	require.Equal(t, graph.Stored{Version: 3, Dangling: true, Properties: map[string]any{}}, get(t, client, "set"))
	require.Empty(t, get(t, client, "layer").Edges)
}

func TestConcurrentLargeWritersOfOneRecord(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	require.NoError(t, graphtest.Open(t, cfg).Ensure(t.Context()))
	var wg sync.WaitGroup
	for w := range 3 {
		client := graphtest.Open(t, cfg)
		wg.Go(func() {
			for version := int64(w + 1); version <= 9; version += 3 {
				s := layerOf("a", version, 6000)
				if version%2 == 0 {
					s = layerOf("a", version, 20)
				}
				for err := client.Write(t.Context(), []graph.Subgraph{s}); err != nil; err = client.Write(t.Context(), []graph.Subgraph{s}) {
					if !failures(t, err)[0].Retryable {
						t.Errorf("version %d: %v", version, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	client := graphtest.Open(t, cfg)
	require.EqualValues(t, 9, get(t, client, "a").Version)
	require.Equal(t, layerOf("a", 9, 6000).Edges, byOrdinal(edges(t, client, "a")))
}
