package task

import (
	"context"
	"errors"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
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
	return append(failures, s.replace(ctx, docs)...)
}

// replace writes documents together. Where PostgreSQL refuses them for what they
// hold, they are halved until the one at fault stands alone.
func (s fullTextSink) replace(ctx context.Context, docs []fulltext.Document) (failures []failure) {
	err := s.documents.Write(ctx, docs)
	rejected := errors.Is(err, store.ErrRejected)
	switch {
	case err == nil:
	case rejected && len(docs) > 1:
		middle := len(docs) / 2
		failures = append(s.replace(ctx, docs[:middle]), s.replace(ctx, docs[middle:])...)
	default:
		for _, d := range docs {
			failures = append(failures, failure{key: d.Key, retryable: !rejected, err: err})
		}
	}
	return failures
}
