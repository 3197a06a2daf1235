package rebuild

import (
	"context"
	"fmt"
	"sync"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
)

// Search rebuilds the indexes.
type Search struct {
	catalog *catalog.Catalog
	client  *search.Client
	next    *search.Client
}

// NewSearch takes a client on which Ensure has been called.
func NewSearch(c *catalog.Catalog, client *search.Client) *Search {
	return &Search{catalog: c, client: client}
}

// Target is the search projection.
func (*Search) Target() record.Target { return record.Search }

// Open makes the indexes that are not there.
func (s *Search) Open(ctx context.Context, generation string) (fresh bool, upTo record.Key, done int64, err error) {
	var mappings []search.Mapping
	for _, c := range s.catalog.Collections() {
		if m, ok := project.Mapping(c); ok {
			mappings = append(mappings, m)
		}
	}
	s.next, fresh, err = s.client.Beside(ctx, generation, mappings)
	return fresh, upTo, 0, err
}

type documents struct {
	list     []search.Document
	failures []Failure
}

// Project makes documents.
func (s *Search) Project(records []Reading) any {
	out := &documents{list: make([]search.Document, 0, len(records))}
	for _, rec := range records {
		if rec.Decoded == nil {
			continue // only collections that the catalog knows have an index
		}
		var doc search.Document
		err := guarded(func() (err error) { doc, err = rec.Decoded.Document(); return err })
		out.add(doc, rec, err)
	}
	return out
}

func (d *documents) add(doc search.Document, rec Reading, err error) {
	if err != nil {
		d.failures = append(d.failures, Failure{rec.Key, err})
		return
	}
	doc.Version = rec.Version
	d.list = append(d.list, doc)
}

// Fill writes documents, in two requests at a time.
func (s *Search) Fill(ctx context.Context, projected any, _ record.Key, _ int64) ([]Failure, error) {
	return s.write(ctx, projected.(*documents))
}

// Write brings documents up to date.
func (s *Search) Write(ctx context.Context, items []Item) ([]Failure, error) {
	docs := &documents{}
	for _, it := range items {
		if _, known := s.catalog.Collection(it.Key.Collection); !known {
			continue
		}
		doc, rec := search.Document{Key: it.Key}, it.read(s.catalog)
		var err error
		if rec.Decoded != nil {
			err = guarded(func() (err error) { doc, err = rec.Decoded.Document(); return err })
		}
		docs.add(doc, rec, err)
	}
	return s.write(ctx, docs)
}

func (s *Search) write(ctx context.Context, docs *documents) ([]Failure, error) {
	middle := len(docs.list) / 2
	var errs [2]error
	var both sync.WaitGroup
	for i, part := range [][]search.Document{docs.list[:middle], docs.list[middle:]} {
		both.Go(func() { errs[i] = s.next.Write(ctx, part) })
	}
	both.Wait()
	failures, err := failed(docs.failures, errs[0])
	if err != nil {
		return nil, err
	}
	return failed(failures, errs[1])
}

// Promote moves all aliases at once.
func (s *Search) Promote(ctx context.Context) error { return s.client.Promote(ctx, s.next) }

// Discard drops generations that were not promoted.
func (s *Search) Discard(ctx context.Context) error { return s.client.Abandon(ctx) }

// guarded turns a panic into an error, so that one record does not end it all.
func guarded(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("projection panicked: %v", r)
		}
	}()
	return run()
}
