// Package querytest is what every search must do, whichever store it asks: one suite
// of real records, projected as the indexer does, and questions with known answers.
package querytest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
)

// The collections of the suite.
const (
	Expression = syntax.NSID("pub.layers.expression.expression")
	Layer      = syntax.NSID("pub.layers.annotation.annotationLayer")
	Corpus     = syntax.NSID("pub.layers.corpus.corpus")
	Ontology   = syntax.NSID("pub.layers.ontology.ontology")
)

const (
	writer = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	other  = syntax.DID("did:plc:44ybard66vv44zksje25o7dz")
)

// Store is a search under test, with the means to fill it.
type Store interface {
	Search(ctx context.Context, q query.Question) (query.Answer, error)
	Complete(ctx context.Context, c query.Completion) (query.Titles, error)
	// Put writes projected records; those without a document are deleted. What is
	// written is found when it returns.
	Put(t *testing.T, records ...Projected)
	// Status sets an account's; "active" shows it again.
	Status(t *testing.T, did syntax.DID, status string)
}

// Projected is a record as the projections write it.
type Projected struct {
	Document    search.Document
	Annotated   bool
	Annotations []record.Annotation
}

// World is what a store has to be made for.
type World struct {
	Catalog  *catalog.Catalog
	Schema   *query.Schema
	Mappings []search.Mapping
}

// NewWorld reads the lexicons.
func NewWorld(t *testing.T) World {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	w := World{Catalog: c}
	var types []query.Type
	for _, nsid := range []syntax.NSID{Expression, Layer, Corpus, Ontology} {
		collection, ok := c.Collection(nsid)
		require.True(t, ok)
		searched, ok := project.Searched(collection)
		require.True(t, ok)
		mapping, ok := project.Mapping(collection)
		require.True(t, ok)
		types, w.Mappings = append(types, searched), append(w.Mappings, mapping)
	}
	w.Schema = query.NewSchema(types)
	return w
}

// suite is a store with the versions that were written to it.
type suite struct {
	World
	Store
	version int64
	begun   time.Time
}

// put writes a record of the collection.
func (s *suite) put(t *testing.T, did syntax.DID, collection syntax.NSID, rkey string, value map[string]any) {
	t.Helper()
	s.Put(t, s.projected(t, did, collection, rkey, value))
}

func (s *suite) projected(t *testing.T, did syntax.DID, collection syntax.NSID, rkey string, value map[string]any) Projected {
	t.Helper()
	s.version++
	key := record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(rkey)}
	if value == nil {
		return Projected{Document: search.Document{Key: key, Version: s.version}, Annotated: collection == Layer}
	}
	value["$type"] = string(collection)
	if _, ok := value["createdAt"]; !ok {
		value["createdAt"] = s.begun.Add(-time.Duration(s.version) * time.Minute).Format(time.RFC3339)
	}
	block, err := atdata.MarshalCBOR(value)
	require.NoError(t, err)
	checked, err := s.Catalog.Check(key, block)
	require.NoError(t, err, rkey)
	rec := record.Record{
		Key: key, CID: "bafyreidfcm4u3vnuph5ltwdpssiz3a4xfbm2otjrdisftwnbfmnxd6lsxm", Value: checked.JSON,
		CreatedAt: checked.CreatedAt, IndexedAt: s.begun, Version: s.version,
	}
	c, _ := s.Catalog.Collection(collection)
	p := Projected{}
	p.Document, err = project.Document(c, rec)
	require.NoError(t, err)
	if p.Annotated = collection == Layer; p.Annotated {
		p.Annotations, err = project.Annotations(c, rec)
		require.NoError(t, err)
	}
	return p
}

// found is the record keys of an answer, in its order.
func (s *suite) found(t *testing.T, q query.Question) []string {
	t.Helper()
	answer, err := s.Search(t.Context(), q)
	require.NoError(t, err, q.Text)
	return rkeys(answer.Hits)
}

func rkeys(hits []query.Hit) []string {
	out := []string{}
	for _, h := range hits {
		out = append(out, string(h.URI.RecordKey()))
	}
	return out
}

// expression is the URI of one of the writer's.
func expression(rkey string) string { return fmt.Sprintf("at://%s/%s/%s", writer, Expression, rkey) }

// Run holds a store to the suite.
func Run(t *testing.T, world World, store Store) {
	s := &suite{World: world, Store: store, begun: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	t.Run("judged", s.judged)
	t.Run("language of queries", s.language)
	t.Run("highlights", s.highlights)
	t.Run("annotations", s.annotations)
	t.Run("facets", s.facets)
	t.Run("pages", s.pages)
	t.Run("changes", s.changes)
	t.Run("accounts", s.accounts)
	t.Run("completions", s.completions)
	t.Run("refusals", s.refusals)
}

// Corpora are n records to find by the word corpus.
func Corpora(t *testing.T, world World, n int) []Projected {
	t.Helper()
	s := &suite{World: world, begun: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	var all []Projected
	for i := range n {
		all = append(all, s.projected(t, writer, Corpus, fmt.Sprintf("corpus-%d", i), map[string]any{"name": fmt.Sprintf("Corpus %d", i)}))
	}
	return all
}
