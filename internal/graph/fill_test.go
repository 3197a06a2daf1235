package graph_test

import (
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
	"github.com/layers-pub/layers-appview/internal/record"
)

// TestFillingGivesWhatWritingGives fills a generation in parts, as runs that were killed
// do: by a filler that begins with nothing, by one that is wrongly told that there is
// nothing yet, and by one that knows that there is something.
func TestFillingGivesWhatWritingGives(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	const records = 30
	name := func(i int) string { return fmt.Sprintf("node%02d", i%records) }
	all := make([]graph.Subgraph, records)
	for i := range all {
		all[i] = graph.Subgraph{
			Key: key(name(i)), Version: int64(i + 1), Labels: []string{"GraphNode", []string{"Person", "Place"}[i%2]},
			Properties: map[string]any{"label": name(i), "tags": []string{"a", "b"}},
			Edges: []graph.Edge{
				reference(name(i), name(i+1)), reference(name(i), name(i+records-1)), reference(name(i), name(i)),
				reference(name(i), "never"), reference(name(i), fmt.Sprint("never", i/2)),
				{Type: graph.KnowledgeRef, From: node(name(i)), To: graph.Knowledge("wikidata", fmt.Sprint("Q", i%4)), Properties: map[string]any{"path": "p"}},
				{Type: graph.LinksEprint, From: node(name(i)), To: graph.External("https://example.org/1"), Properties: map[string]any{}},
				{Type: graph.GraphEdge, From: node(name(i + 7)), To: node(name(i + 13)), Properties: map[string]any{"edge_type": "near"}},
			},
		}
		if i%5 == 0 {
			all[i].Labels = nil
		}
	}
	write(t, client, all...)
	written := map[string]graph.Stored{}
	for i := range records {
		written[name(i)] = get(t, client, name(i))
	}

	beside, err := client.Beside("filled")
	require.NoError(t, err)
	for part, empty := range []bool{true, true, false} {
		filler, batch := beside.NewFiller(empty), all[part*10:part*10+10]
		last := batch[len(batch)-1].Key
		require.NoError(t, filler.Fill(t.Context(), filler.Prepare(batch), last, int64(part*10+10)))
		upTo, done, err := beside.Filled(t.Context())
		require.NoError(t, err)
		require.Equal(t, last, upTo)
		require.EqualValues(t, part*10+10, done)
	}
	require.NoError(t, client.Promote(t.Context(), "filled"))
	for i := range records {
		got, want := get(t, client, name(i)), written[name(i)]
		require.ElementsMatch(t, want.Edges, got.Edges, name(i))
		require.ElementsMatch(t, want.Labels, got.Labels)
		got.Edges, want.Edges, got.Labels, want.Labels = nil, nil, nil, nil
		require.Equal(t, want, got)
	}
	require.True(t, get(t, client, "never").Dangling)
}

// TestEachTransactionOfAFillingIsNoted fills what is too much for one transaction, in the
// order in which records are scanned, which is not that of the nodes' keys.
func TestEachTransactionOfAFillingIsNoted(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	beside, err := client.Beside("filled")
	require.NoError(t, err)
	var batch []graph.Subgraph
	for _, did := range []syntax.DID{"did:web:a", "did:web:a.example"} {
		for i := range graph.FillRecords {
			key := record.Key{DID: did, Collection: "pub.layers.graph.graphNode", Rkey: syntax.RecordKey(fmt.Sprintf("r%04d", i))}
			batch = append(batch, graph.Subgraph{Key: key, Version: 1})
		}
	}
	last := batch[len(batch)-1].Key
	filler := beside.NewFiller(true)
	prepared := filler.Prepare(batch)
	require.NoError(t, filler.Fill(t.Context(), prepared, last, int64(len(batch))))
	upTo, done, err := beside.Filled(t.Context())
	require.NoError(t, err)
	require.Equal(t, last, upTo)
	require.EqualValues(t, len(batch), done)
	found := 0
	require.NoError(t, beside.Scan(t.Context(), func(record.Key, int64) error { found++; return nil }))
	require.Equal(t, len(batch), found)
}
