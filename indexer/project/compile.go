package project

import (
	"slices"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// maxShapes ends the expansion of a lexicon whose definitions multiply; beyond
// it everything is open.
const maxShapes = 20_000

// expander turns a schema, in which a definition is one node however often it is
// used, into a tree of shapes: what becomes of a value depends on its place.
type expander struct {
	within []string // the definitions that are being expanded, against recursion
	shapes int
}

// expand is the shape of a schema. Where items is true, required lists of
// objects inside hold things of their own.
func (e *expander) expand(s *catalog.Schema, items bool) *shape {
	if e.shapes++; e.shapes > maxShapes || s.Def != "" && slices.Contains(e.within, s.Def) {
		return &shape{kind: open, def: s.Def}
	}
	if s.Def != "" {
		e.within = append(e.within, s.Def)
		defer func() { e.within = e.within[:len(e.within)-1] }()
	}
	out := &shape{kind: kinds[s.Type], def: s.Def}
	switch s.Type {
	case catalog.String:
		out.text(s)
	case catalog.Array:
		out.items = e.expand(s.Items, items)
		out.nested = items && out.items.branches()
	case catalog.Object:
		for _, p := range s.Properties {
			inner := e.expand(p.Schema, items && p.Required)
			out.props = append(out.props, property{name: p.Name, required: p.Required, shape: inner})
		}
	case catalog.Union:
		for _, v := range s.Variants {
			if v.Type == catalog.Object {
				out.variants = append(out.variants, e.expand(v, false))
			}
		}
	}
	return out
}

var kinds = map[catalog.Type]kind{
	catalog.String: text, catalog.Integer: integer, catalog.Boolean: boolean, catalog.Blob: blob,
	catalog.CIDLink: link, catalog.Object: object, catalog.Array: array, catalog.Union: union,
}

func (s *shape) text(schema *catalog.Schema) {
	s.format, s.known = schema.Format, schema.KnownValues
	s.closed = len(schema.KnownValues) > 0 || len(schema.Enum) > 0 || schema.Const != nil
	if schema.MaxLength != nil {
		s.max = *schema.MaxLength
	}
	if s.format == "datetime" {
		s.kind = datetime
	}
}
