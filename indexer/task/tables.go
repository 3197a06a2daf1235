package task

import (
	"context"
	"errors"
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
	return append(failures, s.replace(ctx, layers)...)
}

// replace writes layers together. Where PostgreSQL refuses them for what they
// hold, they are halved until the one at fault stands alone.
func (s tablesSink) replace(ctx context.Context, layers []store.Layer) (failures []failure) {
	err := s.tables.ReplaceAnnotations(ctx, layers)
	rejected := errors.Is(err, store.ErrRejected)
	switch {
	case err == nil:
	case rejected && len(layers) > 1:
		middle := len(layers) / 2
		failures = append(s.replace(ctx, layers[:middle]), s.replace(ctx, layers[middle:])...)
	default:
		for _, l := range layers {
			failures = append(failures, failure{key: l.Key, retryable: !rejected, err: err})
		}
	}
	return failures
}
