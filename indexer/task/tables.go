package task

import (
	"context"
	"slices"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// tablesSink writes the read tables inside PostgreSQL.
type tablesSink struct {
	catalog *catalog.Catalog
	tables  *store.Tables
	records *store.Reader // asked whether PostgreSQL is there
}

func (s tablesSink) ping(ctx context.Context) error { return s.records.Ping(ctx) }

func (s tablesSink) write(ctx context.Context, items []item) (failures []failure) {
	var layers []store.Layer
	for _, it := range items {
		layer := store.Layer{Key: it.key, Version: it.version(), Deleted: it.present == nil}
		c, ok := s.catalog.Collection(it.key.Collection)
		if !ok || !slices.Contains(project.Targets(c), record.Tables) {
			continue // its lexicon has no annotations any more
		}
		if it.present != nil {
			err := projecting(func() (err error) { layer.Rows, err = project.Annotations(c, *it.present); return err })
			if err != nil {
				failures = append(failures, failure{key: it.key, err: err})
				continue
			}
		}
		layers = append(layers, layer)
	}
	return append(failures, inOne(layers, func(l *store.Layer) record.Key { return l.Key }, func(some []store.Layer) error {
		return s.tables.ReplaceAnnotations(ctx, some)
	})...)
}
