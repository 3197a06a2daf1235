package graph_test

import (
	"testing"

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
