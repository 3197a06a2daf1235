package project

import (
	"slices"
	"strings"
)

// kind is the data model's type of a value, as the lexicon states it.
type kind uint8

const (
	open kind = iota // "unknown", a token, or deeper than the schema is followed
	text
	integer
	boolean
	datetime
	blob
	link // cid-link
	object
	array
	union
)

// shape is a lexicon definition with its references followed: what a value of
// it looks like, and what a document keeps of it. A collection's shape is
// built once and read by many.
type shape struct {
	kind     kind
	def      string     // full name of the definition it comes from; empty for an inline one
	props    []property // object: sorted by name
	items    *shape     // array
	variants []*shape   // union
	format   string     // text
	max      int        // text: longest in bytes, 0 if unbounded
	closed   bool       // text: has known or enumerated values, or one constant
	known    []string   // text: its known values

	nested bool // array: its elements are things of their own, kept apart in the index
	mapped bool // has a field in the index
	inner  bool // is inside a list of objects or a union: not a property of the record itself
}

type property struct {
	name     string
	required bool
	*shape
}

// prop is the property of that name, or nil.
func (s *shape) prop(name string) *shape {
	i, ok := slices.BinarySearchFunc(s.props, name, func(p property, n string) int { return strings.Compare(p.name, n) })
	if !ok {
		return nil
	}
	return s.props[i].shape
}

// variant is the member of a union that a value's $type names, or nil.
func (s *shape) variant(value map[string]any) *shape {
	name, _ := value["$type"].(string)
	name = strings.TrimSuffix(name, "#main")
	for _, v := range s.variants {
		if v.def == name {
			return v
		}
	}
	return nil
}

// element is the shape inside any number of arrays.
func (s *shape) element() *shape {
	for s.kind == array {
		s = s.items
	}
	return s
}

// form is how a text is indexed.
type form uint8

const (
	term  form = iota // one keyword: looked up, counted and sorted, whole
	label             // words; one keyword where it is inside a list of objects
	prose             // words
)

const (
	maxTerm  = 64   // bytes; a property allowed no more than this holds a code, not words
	maxLabel = 4096 // bytes; more is prose
)

func (s *shape) form() form {
	switch {
	case s.format != "", s.closed, s.max > 0 && s.max <= maxTerm:
		return term
	case s.max > maxLabel:
		return prose
	default:
		return label
	}
}
