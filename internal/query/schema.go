package query

import (
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Kind is how a field's values are compared.
type Kind uint8

// The kinds of fields.
const (
	Term   Kind = iota + 1 // whole, exactly
	Text                   // by words
	Number                 // as integers
	Flag                   // true or false
)

// Field is a property of a type's records that can be asked for.
type Field struct {
	Path string // from the record down, with dots
	Kind Kind
}

// Type is a collection that can be searched.
type Type struct {
	Collection  syntax.NSID
	Fields      []Field
	Annotations string // the property that holds annotations; empty without one
}

// Schema is what can be searched, and for what.
type Schema struct {
	types []Type
	kinds map[string][]Kind // by path
}

// NewSchema takes the types that there are.
func NewSchema(types []Type) *Schema {
	s := &Schema{types: types, kinds: map[string][]Kind{}}
	for _, t := range types {
		for _, f := range t.Fields {
			if !slices.Contains(s.kinds[f.Path], f.Kind) {
				s.kinds[f.Path] = append(s.kinds[f.Path], f.Kind)
			}
		}
	}
	return s
}

// Type is that of a collection; false if it cannot be searched.
func (s *Schema) Type(collection syntax.NSID) (Type, bool) {
	i := slices.IndexFunc(s.types, func(t Type) bool { return t.Collection == collection })
	if i < 0 {
		return Type{}, false
	}
	return s.types[i], true
}

// Collections are those that can be searched.
func (s *Schema) Collections() []syntax.NSID {
	var out []syntax.NSID
	for _, t := range s.types {
		out = append(out, t.Collection)
	}
	return out
}

// Annotated are the types whose records hold annotations.
func (s *Schema) Annotated() []Type {
	return slices.DeleteFunc(slices.Clone(s.types), func(t Type) bool { return t.Annotations == "" })
}

// named are the collections that a user means by a name: the whole NSID or its end.
func (s *Schema) named(name string) []syntax.NSID {
	var out []syntax.NSID
	for _, t := range s.types {
		if string(t.Collection) == name || strings.HasSuffix(strings.ToLower(string(t.Collection)), "."+strings.ToLower(name)) {
			out = append(out, t.Collection)
		}
	}
	return out
}

// field is a field's own name and how it is compared; none if there is no such field.
func (s *Schema) field(name string) (path string, kinds []Kind) {
	switch name {
	case "lang", LanguageField:
		return LanguageField, []Kind{Term}
	case LabelField:
		return LabelField, []Kind{Text}
	case TypeField, KnowledgeField:
		return name, []Kind{Term}
	}
	if path, kinds := s.ofAnnotations(name); kinds != nil {
		return path, kinds
	}
	return name, s.kinds[name]
}

// fields lists what can be asked for, for a message.
func (s *Schema) fields() string {
	names := []string{LabelField, LanguageField, TypeField, KnowledgeField}
	for path := range s.kinds {
		if !strings.Contains(path, ".") {
			names = append(names, path)
		}
	}
	if len(s.Annotated()) > 0 {
		names = append(names, "confidence", AnnotationLabel, AnnotationValue, AnnotationAnchor)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
