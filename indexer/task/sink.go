package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
)

// sink is a projection as a worker sees it.
type sink interface {
	// write brings records up to date and returns what did not succeed.
	write(ctx context.Context, items []item) []failure
	ping(ctx context.Context) error
}

// item is one record to bring up to date.
type item struct {
	key     record.Key
	rows    []record.Pending // that ask for it
	present *record.Record   // nil: the record is gone, so its projection has to go
}

// version is the one to write. An outbox row can be newer than the record that it
// names: when a repository came back, or when the record is projected again
// because of another. It is older where the record has changed once more since.
func (i item) version() (v int64) {
	if i.present != nil {
		v = i.present.Version
	}
	for _, r := range i.rows {
		v = max(v, r.Version)
	}
	return v
}

func (i item) outcome() string {
	if i.present == nil {
		return "deleted"
	}
	return "written"
}

// failure says why a record was not brought up to date.
type failure struct {
	key       record.Key
	retryable bool // the same may succeed later; otherwise it never will
	err       error

	rev syntax.TID // of the record at fault
	cid syntax.CID
}

// of adds which state of the record is at fault.
func (f failure) of(it item) failure {
	if it.present != nil {
		f.rev, f.cid = it.present.Rev, it.present.CID
	}
	return f
}

// inOne writes what it is given in one go. Where PostgreSQL refuses that for what it
// holds, it is halved until the one at fault stands alone.
func inOne[T any](all []T, key func(*T) record.Key, write func([]T) error) (failures []failure) {
	err := write(all)
	refused := errors.Is(err, store.ErrRejected)
	switch {
	case err == nil:
	case refused && len(all) > 1:
		middle := len(all) / 2
		failures = append(inOne(all[:middle], key, write), inOne(all[middle:], key, write)...)
	default:
		for i := range all {
			failures = append(failures, failure{key: key(&all[i]), retryable: !refused, err: err})
		}
	}
	return failures
}

// searchSink writes documents.
type searchSink struct {
	catalog *catalog.Catalog
	client  *search.Client
}

func (s searchSink) ping(ctx context.Context) error { return s.client.Ping(ctx) }

func (s searchSink) write(ctx context.Context, items []item) (failures []failure) {
	var docs []search.Document
	for _, it := range items {
		doc := search.Document{Key: it.key, Version: it.version()}
		c, ok := s.catalog.Collection(it.key.Collection)
		if !ok || !slices.Contains(project.Targets(c), record.Search) {
			continue // its index is no longer kept
		}
		if it.present != nil {
			err := projecting(func() (err error) { doc, err = project.Document(c, *it.present); return err })
			if err != nil {
				failures = append(failures, failure{key: it.key, err: err})
				continue
			}
			doc.Version = it.version()
		}
		docs = append(docs, doc)
	}
	return append(failures, refusals(s.client.Write(ctx, docs))...)
}

// graphSink writes subgraphs.
type graphSink struct {
	catalog *catalog.Catalog
	client  *graph.Client
	repos   deletions

	knowledge knowledgeCounters
}

// deletions tells which accounts are deleted; see [store.Reader].
type deletions interface {
	Deleted(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error)
}

func (s graphSink) ping(ctx context.Context) error { return s.client.Ping(ctx) }

func (s graphSink) write(ctx context.Context, items []item) []failure {
	subgraphs, failures := subgraphsOf(s.catalog, s.knowledge, items)
	failures = append(failures, refusals(s.client.Write(ctx, subgraphs))...)
	return append(failures, s.erase(ctx, items)...)
}

// subgraphsOf are what records contribute to the graph, in either store.
func subgraphsOf(known *catalog.Catalog, knowledge knowledgeCounters, items []item) (subgraphs []graph.Subgraph, failures []failure) {
	for _, it := range items {
		sub := graph.Subgraph{Key: it.key, Deleted: true}
		c, ok := known.Collection(it.key.Collection)
		if it.present != nil && ok {
			err := projecting(func() (err error) { sub, err = project.Subgraph(c, *it.present); return err })
			if err != nil {
				failures = append(failures, failure{key: it.key, err: err})
				continue
			}
			knowledge.count(sub.Edges)
		}
		sub.Version = it.version()
		subgraphs = append(subgraphs, sub)
	}
	return subgraphs, failures
}

// refusals are what a server did not take.
func refusals(err error) (failures []failure) {
	if refused := (*record.WriteError)(nil); errors.As(err, &refused) {
		for _, f := range refused.Failures {
			failures = append(failures, failure{key: f.Key, retryable: f.Retryable, err: f.Err})
		}
	}
	return failures
}

// erase leaves nothing of deleted accounts: the node of a deleted record keeps its
// version, and with it the record's name. Which accounts these are is asked after
// the write, so that of two workers the one that is late sees it, too: it cannot
// bring back what the other one has erased.
func (s graphSink) erase(ctx context.Context, items []item) []failure {
	var dids []syntax.DID
	for _, it := range items {
		dids = append(dids, it.key.DID)
	}
	slices.Sort(dids)
	deleted, err := s.repos.Deleted(ctx, slices.Compact(dids))
	var gone []graph.Subgraph
	for _, it := range items {
		if deleted[it.key.DID] {
			gone = append(gone, graph.Subgraph{Key: it.key, Version: it.version(), Deleted: true})
		}
	}
	if err == nil && len(gone) > 0 {
		if failures := refusals(s.client.Write(ctx, gone)); len(failures) > 0 {
			return failures
		}
		err = s.client.Forget(ctx, gone)
	}
	if err == nil {
		return nil
	}
	failures := make([]failure, len(items))
	for i, it := range items {
		failures[i] = failure{key: it.key, retryable: true, err: err}
	}
	return failures
}

// projecting turns a panic into an error, so that one record that a projection
// stumbles over does not take its whole task along.
func projecting(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("projection panicked: %v", r)
		}
	}()
	return run()
}
