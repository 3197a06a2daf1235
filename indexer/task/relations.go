package task

import (
	"context"
	"errors"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
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

func (s relationsSink) write(ctx context.Context, items []item) (failures []failure) {
	var records []relations.Record
	for _, it := range items {
		rec := relations.Record{Key: it.key, Version: it.version(), Deleted: true}
		c, ok := s.catalog.Collection(it.key.Collection)
		if it.present != nil && ok {
			var sub graph.Subgraph
			err := projecting(func() (err error) { sub, err = project.Subgraph(c, *it.present); return err })
			if err != nil {
				failures = append(failures, failure{key: it.key, err: err})
				continue
			}
			s.knowledge.count(sub.Edges)
			rec.Deleted, rec.Label, rec.Edges = false, traversal.Label(sub.Properties), sub.Stated()
		}
		records = append(records, rec)
	}
	return append(failures, s.replace(ctx, records)...)
}

// replace writes records together. Where PostgreSQL refuses them for what they hold,
// they are halved until the one at fault stands alone.
func (s relationsSink) replace(ctx context.Context, records []relations.Record) (failures []failure) {
	err := s.store.Replace(ctx, records)
	refused := errors.Is(err, relations.ErrRejected)
	switch {
	case err == nil:
	case refused && len(records) > 1:
		middle := len(records) / 2
		failures = append(s.replace(ctx, records[:middle]), s.replace(ctx, records[middle:])...)
	default:
		for _, r := range records {
			failures = append(failures, failure{key: r.Key, retryable: !refused, err: err})
		}
	}
	return failures
}
