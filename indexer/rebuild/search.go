package rebuild

import (
	"context"
	"errors"
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
func (s *Search) Project(records []record.Record) any {
	out := &documents{}
	for i := range records {
		s.add(out, Item{Key: records[i].Key, Version: records[i].Version, Present: &records[i]})
	}
	return out
}

func (s *Search) add(out *documents, it Item) {
	doc := search.Document{Key: it.Key, Version: it.Version}
	c, ok := s.catalog.Collection(it.Key.Collection)
	if !ok {
		return
	}
	if it.Present != nil {
		err := guarded(func() (err error) { doc, err = project.Document(c, *it.Present); return err })
		if err != nil {
			out.failures = append(out.failures, Failure{it.Key, err})
			return
		}
		doc.Version = it.Version
	}
	out.list = append(out.list, doc)
}

// Fill writes documents, in two requests at a time.
func (s *Search) Fill(ctx context.Context, projected any, _ record.Key, _ int64) ([]Failure, error) {
	return s.write(ctx, projected.(*documents))
}

// Write brings documents up to date.
func (s *Search) Write(ctx context.Context, items []Item) ([]Failure, error) {
	docs := &documents{}
	for _, it := range items {
		s.add(docs, it)
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
	failures := docs.failures
	for _, err := range errs {
		refused := (*search.WriteError)(nil)
		if !errors.As(err, &refused) {
			if err != nil {
				return nil, err
			}
			continue
		}
		for _, f := range refused.Failures {
			if f.Retryable {
				return nil, fmt.Errorf("writing %s: %w", f.Key, f.Err)
			}
			failures = append(failures, Failure{f.Key, f.Err})
		}
	}
	return failures, nil
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
