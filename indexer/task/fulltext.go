package task

import (
	"context"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
)

// fullTextSink writes what PostgreSQL searches by: the documents of the index.
type fullTextSink struct {
	catalog   *catalog.Catalog
	documents *fulltext.Documents
	records   *store.Reader // asked whether PostgreSQL is there
}

func (s fullTextSink) ping(ctx context.Context) error { return s.records.Ping(ctx) }

func (s fullTextSink) write(ctx context.Context, items []item) (failures []failure) {
	var docs []fulltext.Document
	for _, it := range items {
		doc := fulltext.Document{Key: it.key, Version: it.version()}
		c, ok := s.catalog.Collection(it.key.Collection)
		if !ok {
			continue
		}
		if _, searched := project.Searched(c); !searched {
			continue // it is no longer
		}
		if it.present != nil {
			err := projecting(func() error {
				projected, err := project.Document(c, *it.present)
				doc.CID, doc.CreatedAt, doc.Body = projected.CID, projected.CreatedAt, projected.Body
				return err
			})
			if err != nil {
				failures = append(failures, failure{key: it.key, err: err})
				continue
			}
		}
		docs = append(docs, doc)
	}
	return append(failures, inOne(docs, func(d *fulltext.Document) record.Key { return d.Key }, func(some []fulltext.Document) error {
		return s.documents.Write(ctx, some)
	})...)
}
