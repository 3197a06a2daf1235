// Package query says what can be asked of a search and what is answered, whichever
// store does it: the language that users type ([Parse]), the question around it, the
// words that texts are compared by ([Scan]), and the marking of what was found
// ([Marker]). It asks no store.
package query

import (
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Bounds of a question.
const (
	DefaultLimit = 25
	MaxLimit     = 100
	MaxText      = 2000 // bytes of what a user typed
	MaxClauses   = 32
	MaxWords     = 64     // of one clause
	MaxValues    = 20_000 // of one filter
	MaxBuckets   = 50     // of one facet
	MaxMatching  = 100    // annotations shown of one layer
	MaxCounted   = 10_000 // hits; a total beyond is a lower bound
	MaxFacets    = 8
	MaxCompleted = 50
)

// Question asks for records. All that it names must hold.
type Question struct {
	Text      string        // as the user typed it, see [Parse]; may be empty
	Types     []syntax.NSID // any of these; empty for all that can be searched
	Languages []string      // any of these; a tag also stands for its narrower ones: yo for yo-NG
	// OnTexts are expressions in any of the Languages: a layer on one of them is in the
	// language as well, whatever it says itself. They are not what tells a cursor's question
	// from another.
	OnTexts []string
	Filters []Filter
	// Annotations asks for layers with an annotation of this kind; nil for any record.
	Annotations *AnnotationFilter
	Facets      []string // what to count hits by: a field's path or one of the names below; see [LabelFacet]
	Limit       int      // hits; 0 for [DefaultLimit]
	Cursor      string   // of the answer before; everything else must be as it was, but for Facets and Limit
}

// Filter asks for records whose field has any of the values.
type Filter struct {
	Field  string
	Values []string
}

// AnnotationFilter describes one annotation: what it asks for holds of the same one.
// The zero value asks for any annotation. Labels and values are compared exactly.
type AnnotationFilter struct {
	Label, Value  string
	Anchor        string // the member of the anchor that is set: textSpan, tokenRef, ...
	ConfidenceMin *int64 // 0-1000
	ConfidenceMax *int64
}

// ExpressionField is the property of layers that names their text.
const ExpressionField = "expression"

// Fields of all types, beside the properties of their records.
const (
	LanguageField  = "language"  // also lang: every language that a record names
	LabelField     = "label"     // every label in a record, compared by its words
	TypeField      = "type"      // the collection, or its last part
	KnowledgeField = "knowledge" // every entry of a knowledge base, as source:identifier
)

// LabelFacet counts annotations, not hits, by their labels: those that match the
// question's AnnotationFilter.
const LabelFacet = "annotation.label"

// Answer holds a page of hits, the best first.
type Answer struct {
	Hits   []Hit              `json:"hits"`
	Total  Total              `json:"total"`
	Facets map[string][]Count `json:"facets,omitempty"` // by what was asked for, the most frequent first; on the first page alone
	Cursor string             `json:"cursor,omitempty"` // for the next page; empty on the last
	// Incomplete: what is searched is being filled for the first time, or again, and may
	// lack records.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Total is the number of hits.
type Total struct {
	Value int64 `json:"value"`
	Exact bool  `json:"exact"` // false: there are more
}

// Count is how many hits have a value.
type Count struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}

// Hit is a record that was found.
type Hit struct {
	URI        syntax.ATURI `json:"uri"`
	CID        syntax.CID   `json:"cid"`
	Type       syntax.NSID  `json:"type"`
	Title      string       `json:"title,omitempty"`
	Score      float64      `json:"score"` // within one answer alone; 0 where nothing is ranked
	CreatedAt  *time.Time   `json:"createdAt,omitempty"`
	Highlights []Highlight  `json:"highlights,omitempty"`
	// Annotations are those that match, the first [MaxMatching] of Matching; only of a
	// question that asks for some.
	Annotations []Annotation `json:"annotations,omitempty"`
	Matching    int64        `json:"matching,omitempty"`
}

// Annotation is an annotation of a layer.
type Annotation struct {
	Ordinal    int    `json:"ordinal"` // position in the layer's list
	UUID       string `json:"uuid,omitempty"`
	Label      string `json:"label,omitempty"`
	Value      string `json:"value,omitempty"`
	Text       string `json:"text,omitempty"`
	Anchor     string `json:"anchor,omitempty"`
	ByteStart  *int64 `json:"byteStart,omitempty"`
	ByteEnd    *int64 `json:"byteEnd,omitempty"`
	TokenIndex *int64 `json:"tokenIndex,omitempty"`
	Confidence *int64 `json:"confidence,omitempty"`
}

// Completion asks for records by the beginning of a word of their title.
type Completion struct {
	Types []syntax.NSID // any of these; empty for all
	Text  string        // at least one letter
	Limit int           // 0 for 10
}

// Titles are the completions that were found, the best first.
type Titles struct {
	Completions []Completed `json:"completions"`
	Incomplete  bool        `json:"incomplete,omitempty"` // as of an [Answer]
}

// Completed is a record with a title that was begun.
type Completed struct {
	URI   syntax.ATURI `json:"uri"`
	CID   syntax.CID   `json:"cid"`
	Type  syntax.NSID  `json:"type"`
	Title string       `json:"title"`
}
