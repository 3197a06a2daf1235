package task

import (
	"context"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// relationsSink writes the graph inside PostgreSQL: the same edges as [graphSink].
type relationsSink struct {
	catalog *catalog.Catalog
	store   *relations.Store

	knowledge knowledgeCounters
}

func (s relationsSink) ping(ctx context.Context) error { return s.store.Ping(ctx) }

func (s relationsSink) write(ctx context.Context, items []item) []failure {
	subgraphs, failures := subgraphsOf(s.catalog, s.knowledge, items)
	records := make([]relations.Record, len(subgraphs))
	for i, sub := range subgraphs {
		records[i] = relations.Record{Key: sub.Key, Version: sub.Version, Deleted: sub.Deleted, Label: traversal.Label(sub.Properties), Edges: sub.Stated()}
	}
	return append(failures, inOne(records, func(r *relations.Record) record.Key { return r.Key }, func(some []relations.Record) error {
		return s.store.Replace(ctx, some)
	})...)
}
