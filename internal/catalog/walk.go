package catalog

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// walk goes through a scanned record along its schema. It validates every value
// that the schema has a word about, passes over the others, and collects the
// references: every string of format at-uri, those of strong references included.
type walk struct {
	reader
	catalog *Catalog
	path    []byte // to the present value, with [] for array elements
	refs    references
	links   links
}

// value validates the next value.
//
// The rules are those of the lexicon package, with these differences, all for
// the sake of what the specification says:
//   - a union's $type may name a main definition with or without #main;
//   - a reference to a record definition, also by the $type of an open union,
//     means the record's object; the lexicon package has no value for it;
//   - a $type that an open union does not list and that is loaded but no kind of
//     object is passed over like one that is not loaded;
//   - an object of cid and mimeType alone is an object like any other, not a blob
//     in the form of 2022.
func (w *walk) value(s *Schema) *Invalid {
	switch s.Type {
	case Object:
		return w.object(s)
	case Array:
		return w.array(s)
	case Union:
		return w.union(s)
	case Unknown:
		return w.unknown(s)
	case Blob:
		return w.blob(s)
	case String:
		return w.text(s)
	}
	return w.leaf(s)
}

func (w *walk) wrongType(s *Schema) *Invalid {
	return &Invalid{Reason: "wrong type", Expected: s.expected(), Received: describe(w.reader)}
}

func (w *walk) object(s *Schema) *Invalid {
	if !w.isObject() {
		return w.wrongType(s)
	}
	start := w.reader
	seen := 0
	for range w.container() {
		p := s.byName[w.string()]
		if p == nil {
			w.skip()
			continue
		}
		if p.Required {
			seen++
		}
		if err := w.property(p); err != nil {
			return err.under(p.segment)
		}
	}
	if seen < s.required {
		return s.missing(start)
	}
	return nil
}

// isObject tells whether an object comes next. A blob is none: the data model
// has it as a type of its own.
func (w *walk) isObject() bool {
	if w.major() != majorMap {
		return false
	}
	name, ok := w.typeName()
	return !ok || name != blobType
}

func (w *walk) property(p *Property) *Invalid {
	if p.Nullable && w.reader.text[w.pos] == cborNull {
		w.pos++
		return nil
	}
	depth := len(w.path)
	w.path = append(w.path, p.segment...)
	err := w.value(p.Schema)
	w.path = w.path[:depth]
	return err
}

// missing names the first required property that an object has not.
func (s *Schema) missing(object reader) *Invalid {
	there := map[string]bool{}
	for range object.container() {
		there[object.string()] = true
		object.skip()
	}
	for i := range s.Properties {
		if p := &s.Properties[i]; p.Required && !there[p.Name] {
			return (&Invalid{Reason: "required property missing", Expected: p.Schema.expected(), Received: "nothing"}).under(p.segment)
		}
	}
	return nil
}

func (w *walk) array(s *Schema) *Invalid {
	if w.major() != majorArray {
		return w.wrongType(s)
	}
	start := w.reader
	n := w.container()
	if s.MinLength != nil && n < *s.MinLength || s.MaxLength != nil && n > *s.MaxLength {
		return &Invalid{Reason: "length out of bounds", Expected: s.expected(), Received: describe(start)}
	}
	depth := len(w.path)
	w.path = append(w.path, "[]"...)
	for i := range n {
		if err := w.value(s.Items); err != nil {
			return err.under(index(i))
		}
	}
	w.path = w.path[:depth]
	return nil
}

func (w *walk) union(s *Schema) *Invalid {
	if w.major() != majorMap {
		return w.wrongType(s)
	}
	name, ok := w.typeName()
	switch {
	case !ok:
		return &Invalid{Reason: "does not say which member of the union it is", Expected: s.expected(), Received: describe(w.reader)}
	case name == blobType:
		return w.wrongType(s)
	}
	name = strings.TrimSuffix(name, "#main")
	if variant := s.variant(name); variant != nil {
		return w.value(variant)
	}
	if s.Closed {
		return &Invalid{Reason: "not a member of the closed union", Expected: s.expected(), Received: describe(w.reader)}
	}
	if known := w.catalog.types[name]; known != nil && known.Type == Object {
		return w.value(known)
	}
	w.skip()
	return nil
}

func (w *walk) unknown(s *Schema) *Invalid {
	if !w.isObject() {
		return w.wrongType(s)
	}
	w.skip()
	return nil
}

func (w *walk) blob(s *Schema) *Invalid {
	if w.major() != majorMap || w.isObject() {
		return w.wrongType(s)
	}
	if blob := w.reader.blob(); !s.valid(blob) {
		return &Invalid{
			Reason: "blob not acceptable", Expected: s.expected(),
			Received: fmt.Sprintf("%s of %d bytes", excerpt(blob.MimeType, maxExcerpt), blob.Size),
		}
	}
	return nil
}

func (w *walk) text(s *Schema) *Invalid {
	if w.major() != majorText {
		return w.wrongType(s)
	}
	start := w.reader
	v := w.string()
	if s.Format != "at-uri" {
		if err := w.verdict(s, v, start); err != nil {
			return err
		}
		w.links.add(s.Format, w.path, v)
		return nil
	}
	if w.refs.validFor(s, w.path, v) {
		return nil
	}
	if !s.uriAlone || !w.catalog.isUsualURI(v) {
		if err := w.verdict(s, v, start); err != nil {
			return err
		}
	}
	w.refs.add(s, w.path, syntax.ATURI(v))
	return nil
}

func (w *walk) leaf(s *Schema) *Invalid {
	start := w.reader
	v := w.scalar()
	if !s.isLeaf(v) {
		w.reader = start
		return w.wrongType(s)
	}
	return w.verdict(s, v, start)
}

func (w *walk) verdict(s *Schema, v any, start reader) *Invalid {
	if s.valid(v) {
		return nil
	}
	return &Invalid{Reason: s.breach(v), Expected: s.expected(), Received: describe(start)}
}

// references collects references, each path and target once.
type references struct {
	list  []record.Ref
	seen  map[record.Ref]*Schema // what each was last found valid for
	paths map[string]string
}

// validFor tells whether this very reference was found before: layers repeat one
// thousands of times, and its format is costly to check.
func (r *references) validFor(s *Schema, path []byte, target string) bool {
	known, ok := r.paths[string(path)]
	if !ok {
		return false
	}
	before, ok := r.seen[record.Ref{Path: known, Target: syntax.ATURI(target)}]
	return ok && before == s
}

// add adds a reference unless it is there. It keeps nothing of the block.
func (r *references) add(s *Schema, path []byte, target syntax.ATURI) {
	if r.seen == nil {
		r.seen, r.paths = map[record.Ref]*Schema{}, map[string]string{}
	}
	known, ok := r.paths[string(path)]
	if !ok {
		known = strings.TrimPrefix(string(path), ".")
		r.paths[string(path)] = known
	}
	ref := record.Ref{Path: known, Target: target}
	if _, ok := r.seen[ref]; !ok {
		ref.Target = syntax.ATURI(strings.Clone(string(target)))
		r.list = append(r.list, ref)
	}
	r.seen[ref] = s
}
