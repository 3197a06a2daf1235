// Package project maps a record to what each projection keeps of it: a search
// document, a subgraph, table rows. It is pure: no store is asked, so a record
// and its collection's schema decide alone.
//
// Everything follows from the lexicon by rule (mapping.go, edges.go), so that a
// new record type is searched and linked without new code; vocabulary.go holds
// the few definitions and record types that are known by name.
//
// The edges of a record's subgraph, and the way they point:
//
//	REFERENCES     record → every record it refers to; path is where in the record
//	PARENT_OF      the parent* reference's target → record
//	SUBTYPE_OF     record → parentTypeRef
//	ANNOTATES      record of the namespace annotation → expression
//	USES_ONTOLOGY  record → ontologyRef, ontologyRefs
//	BY_PERSONA     record → personaRef, also of metadata
//	LINKS_EPRINT   record → eprintUri, eprintRefs
//	KNOWLEDGE_REF  record → (source, identifier); path is where in the record
//	MEMBER_OF      a membership's member → its whole; ordinal, split
//	ALIGNS         an alignment's source → its target; kind, subkind, …
//	GRAPH_EDGE     an edge's source → its target; edge_type, confidence, ordinal, …
//
// An edge's end that is an object inside a record is the record; source_object
// and target_object have the object's identifier.
package project

import (
	"fmt"
	"sync"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
)

// plan is what is decided of a collection once, for all its records.
type plan struct {
	shape       *shape
	searchable  bool
	annotations string // the property that holds annotations; empty without one
	label       string // of its nodes; empty if its name gives none
}

// plans are by collection, which lives as long as its catalog.
var plans sync.Map // *catalog.Collection to *plan

func planOf(c *catalog.Collection) *plan {
	if c.Foreign {
		return &plan{} // a catalog makes them anew at each look
	}
	if p, ok := plans.Load(c); ok {
		return p.(*plan)
	}
	s := new(expander).expand(c.Schema, true)
	s.plan()
	p := &plan{shape: s, searchable: searchable(c, s), annotations: s.annotationList(), label: nodeLabel(c.Name)}
	actual, _ := plans.LoadOrStore(c, p)
	return actual.(*plan)
}

// searchable reports whether a collection is one to search: it has words of its
// own at the top level, and is not left to the other stores.
func searchable(c *catalog.Collection, s *shape) bool {
	if notSearchable[c.NSID] {
		return false
	}
	for _, p := range s.props {
		if p.kind == text && p.form() != term {
			return true
		}
	}
	return false
}

// Targets are the projections that follow a collection: the graph always, since
// every reference is an edge; the index if there is something to search for; the
// read tables if it has annotations.
func Targets(c *catalog.Collection) []record.Target {
	p := planOf(c)
	targets := []record.Target{record.Graph}
	if p.searchable {
		targets = append(targets, record.Search)
	}
	if p.annotations != "" {
		targets = append(targets, record.Tables)
	}
	return targets
}

// Mapping describes a collection's documents to the index; false if the
// collection is not searchable.
func Mapping(c *catalog.Collection) (search.Mapping, bool) {
	p := planOf(c)
	if !p.searchable {
		return search.Mapping{}, false
	}
	fields := p.shape.properties()
	for name, field := range commonFields() {
		fields[name] = field
	}
	return search.Mapping{Collection: c.NSID, Properties: fields}, true
}

// Searched describes to queries what Mapping describes to the index.
func Searched(c *catalog.Collection) (query.Type, bool) {
	p := planOf(c)
	if !p.searchable {
		return query.Type{}, false
	}
	return query.Type{Collection: c.NSID, Fields: p.shape.fields(nil, ""), Annotations: p.annotations}, true
}

// Reading is a record decoded once, for all that is made of it.
type Reading struct {
	collection *catalog.Collection
	record     record.Record
	value      map[string]any
	err        error
}

// Read decodes a record. Where that fails, so does all that is made of the reading.
func Read(c *catalog.Collection, rec record.Record) Reading {
	value, err := decode(rec.Value)
	return Reading{collection: c, record: rec, value: value, err: err}
}

// Document is what the index keeps of a record of a searchable collection.
func (r Reading) Document() (search.Document, error) {
	rec, p := r.record, planOf(r.collection)
	if !p.searchable {
		return search.Document{}, fmt.Errorf("document of %s: %s is not searchable", rec.Key, r.collection.NSID)
	}
	if r.err != nil {
		return search.Document{}, fmt.Errorf("document of %s: %w", rec.Key, r.err)
	}
	body, err := p.shape.body(rec, r.value)
	if err != nil {
		return search.Document{}, fmt.Errorf("document of %s: %w", rec.Key, err)
	}
	return search.Document{
		Key: rec.Key, Version: rec.Version, CID: rec.CID,
		CreatedAt: rec.CreatedAt, IndexedAt: rec.IndexedAt, Body: body,
	}, nil
}

// Subgraph is what a record contributes to the graph.
func (r Reading) Subgraph() (graph.Subgraph, error) {
	if r.err != nil {
		return graph.Subgraph{}, fmt.Errorf("subgraph of %s: %w", r.record.Key, r.err)
	}
	return planOf(r.collection).subgraph(r.collection, r.record, r.value), nil
}

// Document is that of a record that is read for it alone.
func Document(c *catalog.Collection, rec record.Record) (search.Document, error) {
	return Read(c, rec).Document()
}

// Subgraph is that of a record that is read for it alone.
func Subgraph(c *catalog.Collection, rec record.Record) (graph.Subgraph, error) {
	return Read(c, rec).Subgraph()
}

// Annotations are the table rows of a record of a collection with annotations.
func Annotations(c *catalog.Collection, rec record.Record) ([]record.Annotation, error) {
	name := planOf(c).annotations
	if name == "" {
		return nil, fmt.Errorf("annotations of %s: %s has none", rec.Key, c.NSID)
	}
	return annotations(rec, name)
}
