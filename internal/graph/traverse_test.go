package graph_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
	truth "github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
	"github.com/layers-pub/layers-appview/internal/traversal"
	"github.com/layers-pub/layers-appview/internal/traversal/traversaltest"
)

func TestTraversals(t *testing.T) {
	t.Parallel()
	client, db := graphtest.New(t), storetest.New(t)
	traversaltest.Run(t, traversaltest.Store{
		Graph: traversal.New(graph.NewTraversals(client, truth.NewReader(db.Pool))),
		Write: client.Write,
		Hide:  db.Hide,
	})
}

func TestQuestionsWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	client := graphtest.Open(t, graph.Config{URL: "bolt://127.0.0.1:1"})
	g := traversal.New(graph.NewTraversals(client, truth.NewReader(storetest.New(t).Pool)))
	_, err := g.Neighbors(t.Context(), traversal.OfRecord(key("a")), traversal.Filter{}, traversal.Page{})
	require.ErrorIs(t, err, traversal.ErrUnavailable)
	require.NotErrorIs(t, err, traversal.ErrDeadline)
}

func TestAnswersSayThatTheGraphIsBeingFilled(t *testing.T) {
	t.Parallel()
	client, db := graphtest.New(t), storetest.New(t)
	g := traversal.New(graph.NewTraversals(client, truth.NewReader(db.Pool)))
	write(t, client, subgraph("a", 1, reference("a", "b")))
	for _, filling := range []bool{false, true} {
		found, err := g.Neighbors(t.Context(), traversal.OfRecord(key("a")), traversal.Filter{}, traversal.Page{})
		require.NoError(t, err)
		require.Len(t, found.Neighbors, 1)
		require.Equal(t, traversal.Caveats{Incomplete: filling}, found.Caveats)
		_, err = db.Pool.Exec(t.Context(), "INSERT INTO sweeps (version, target, collection) VALUES (1, 'graph', 'pub.layers.graph.graphNode')")
		require.NoError(t, err)
	}
}

// What a generation that was abandoned had is no answer.
func TestQuestionsFollowTheGenerationInUse(t *testing.T) {
	t.Parallel()
	client, db := graphtest.New(t), storetest.New(t)
	g := traversal.New(graph.NewTraversals(client, truth.NewReader(db.Pool)))
	write(t, client, subgraph("a", 1, reference("a", "b")), subgraph("b", 1))
	next, err := client.Beside("next")
	require.NoError(t, err)
	write(t, next, subgraph("a", 1, reference("a", "c"), reference("a", "d")), subgraph("c", 1))
	count := func() int {
		found, err := g.Neighbors(t.Context(), traversal.OfRecord(key("a")), traversal.Filter{}, traversal.Page{})
		require.NoError(t, err)
		return len(found.Neighbors)
	}
	require.Equal(t, 1, count())
	require.NoError(t, client.Promote(t.Context(), "next"))
	require.Equal(t, 2, count())
	require.NoError(t, client.Abandon(t.Context()))
	require.Equal(t, 2, count())
}
