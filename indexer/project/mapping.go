package project

import (
	"maps"
	"reflect"
	"regexp"
)

// Limits of a mapping, well inside what an index takes by default (1000
// fields, 20 levels).
const (
	maxFields = 800
	maxDepth  = 12
)

// keywordLimit is the longest text, in UTF-16 units, of which a keyword is
// kept. Lucene takes 32,766 bytes and a unit is at most three.
const keywordLimit = 8191

// Fields that a document has besides the record's own properties; no property
// can have such a name. Terms are written by [record.FilterTerm]: look them up
// by its result. Words are written by [query.Normalise], so that the index only has
// to split at spaces, which every Elasticsearch does alike.
const (
	titleField      = "$title"      // the first of name, title, label, form, … that the record has; not indexed
	titleWordsField = "$titleWords" // its words
	completeField   = "$complete"   // terms: what it is completed by, see [query.Completions]
	textField       = "$text"       // every label and prose of the record with its path, each text once; not indexed
	wordsField      = "$words"      // the words of each
	labelsField     = "$labels"     // terms: every property called label, labels or canonicalLabel
	labelWordsField = "$labelWords" // the words of each
	languagesField  = "$languages"  // terms: every language tag, in lower case
	knowledgeField  = "$knowledge"  // terms: every knowledge reference as source:identifier
	sortField       = "$sort"       // grows with age: minus the microseconds from 1970 to min(createdAt, indexedAt)
	typeField       = "$type"       // term, in a union: the variant's full name
	choiceField     = "$kind"       // terms, in a choice among objects: the properties that are there
)

func commonFields() map[string]any {
	return map[string]any{
		titleField:      map[string]any{"type": "keyword", "index": false, "doc_values": false},
		titleWordsField: words(),
		completeField:   keywordField(),
		textField:       map[string]any{"type": "object", "enabled": false},
		wordsField:      words(),
		labelsField:     keywordField(),
		labelWordsField: words(),
		languagesField:  keywordField(),
		knowledgeField:  keywordField(),
		sortField:       map[string]any{"type": "long"},
	}
}

func words() map[string]any { return map[string]any{"type": "text", "analyzer": "whitespace"} }

func keywordField() map[string]any {
	return map[string]any{"type": "keyword", "ignore_above": keywordLimit}
}

func dateField() map[string]any {
	return map[string]any{"type": "date", "format": "strict_date_optional_time", "ignore_malformed": true}
}

// field is the shape's entry in the mapping and the number of fields that it
// alone adds to the index, its properties not counted; nil if it has none.
func (s *shape) field() (entry map[string]any, fields int) {
	if collapsed(s.def) {
		return keywordField(), 1
	}
	switch s.kind {
	case text:
		switch {
		case s.form() == term, s.inner && s.form() == label:
			return keywordField(), 1
		case s.inner:
			return nil, 0 // its words are found, with all others of the record
		default:
			return words(), 1
		}
	case integer:
		return map[string]any{"type": "long"}, 1
	case boolean:
		return map[string]any{"type": "boolean"}, 1
	case datetime:
		return dateField(), 1
	case link:
		return keywordField(), 1
	case blob:
		return map[string]any{"properties": map[string]any{
			"mimeType": keywordField(),
			"size":     map[string]any{"type": "long"},
		}}, 3
	case array:
		entry, fields = s.items.field()
		if entry != nil && s.nested {
			entry["type"] = "nested"
		}
		return entry, fields
	case union:
		return map[string]any{}, 2
	case object:
		return map[string]any{}, 2 // one more where it is a choice
	default:
		return nil, 0
	}
}

// collapsed definitions become one term instead of an object, so that their
// parts stay together without the cost of nesting.
func collapsed(def string) bool {
	return def == defFeatureMap || def == defFeature || def == defKnowledgeRef
}

// plan marks what is mapped of a record's shape: breadth first, so that the
// outer properties come before the budget is used up.
func (s *shape) plan() {
	s.mapped = true
	s.place(false)
	budget := maxFields
	level := []*shape{s}
	for depth := 0; len(level) > 0 && depth < maxDepth; depth++ {
		var next []*shape
		for _, parent := range level {
			next = append(next, parent.planProperties(&budget)...)
		}
		level = next
	}
}

// place marks what is inside lists of objects, and inside unions.
func (s *shape) place(inner bool) {
	s.inner = inner
	for _, p := range s.props {
		p.place(inner)
	}
	for _, v := range s.variants {
		v.place(true)
	}
	if s.items != nil {
		s.items.place(inner || s.element().branches())
	}
}

// planProperties maps an object's properties as far as the budget goes and
// returns those that have properties themselves. The variants of a union share
// one object in the index: of two properties of one name and different type,
// the first is mapped.
func (s *shape) planProperties(budget *int) []*shape {
	var parents []*shape
	taken := map[string]map[string]any{}
	for _, variant := range s.alternatives() {
		variant.mapped = true
		for _, p := range variant.props {
			entry, cost := p.field()
			other, shared := taken[p.name]
			switch {
			case entry == nil || !fieldName.MatchString(p.name):
				continue
			case shared && !reflect.DeepEqual(entry, other):
				continue
			case shared:
				cost = 0
			case cost > *budget:
				continue
			}
			taken[p.name] = entry
			*budget -= cost
			p.mapped = true
			if inner := p.element(); inner.branches() {
				inner.mapped = true
				parents = append(parents, inner)
			}
		}
	}
	return parents
}

// fieldName holds the property names that an index takes as they are; a dot
// would mean an object.
var fieldName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// alternatives are the objects that a value of this shape can be.
func (s *shape) alternatives() []*shape {
	if s.kind == union {
		return s.variants
	}
	return []*shape{s}
}

// branches reports whether the shape's field has fields inside.
func (s *shape) branches() bool {
	return (s.kind == object || s.kind == union) && !collapsed(s.def)
}

// properties is the mapping of a planned object's properties.
func (s *shape) properties() map[string]any {
	out := map[string]any{}
	for _, variant := range s.alternatives() {
		for _, p := range variant.props {
			if !p.mapped {
				continue
			}
			entry, _ := p.field()
			if inner := p.element(); inner.branches() {
				props := inner.properties()
				if earlier, ok := out[p.name].(map[string]any); ok {
					maps.Copy(props, earlier["properties"].(map[string]any))
				}
				entry["properties"] = props
			}
			out[p.name] = entry
		}
	}
	switch {
	case s.kind == union:
		out[typeField] = keywordField()
	case s.isChoice():
		out[choiceField] = keywordField()
	}
	return out
}

// isChoice reports whether an object is a choice among objects, like
// pub.layers.defs#anchor: every property an object, none required.
func (s *shape) isChoice() bool {
	if s.kind != object || len(s.props) < 2 {
		return false
	}
	for _, p := range s.props {
		if p.required || p.kind != object || collapsed(p.def) {
			return false
		}
	}
	return true
}
