package query

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Plan is a question that has been checked, in the form in which a store carries it out.
type Plan struct {
	Collections []syntax.NSID // never empty
	Clauses     []Clause
	Annotations *AnnotationFilter
	Annotated   string // the property that holds them, if they are asked for
	Facets      []Facet
	Limit       int
	First       bool // there is no cursor

	cursor, digest string
}

// Facet is something to count hits by.
type Facet struct {
	Name string
	Kind Kind
}

// Ranked tells whether hits are ordered by how well they match; otherwise the newest
// come first.
func (p *Plan) Ranked() bool {
	return slices.ContainsFunc(p.Clauses, func(c Clause) bool { return c.Field == "" && !c.Not })
}

// Prepare checks a question. Errors are [*SyntaxError], [*Invalid] and [ErrCursor].
func (s *Schema) Prepare(q Question) (*Plan, error) {
	p := &Plan{Limit: cmp.Or(q.Limit, DefaultLimit), First: q.Cursor == "", cursor: q.Cursor}
	if p.Limit < 1 || p.Limit > MaxLimit {
		return nil, invalid("limit", "it is %d; use 1 to %d", q.Limit, MaxLimit)
	}
	clauses, err := Parse(s, q.Text)
	if err != nil {
		return nil, err
	}
	if p.Clauses, p.Annotations, err = ofOne(clauses, q.Annotations); err != nil {
		return nil, err
	}
	if err := s.narrow(p, q); err != nil {
		return nil, err
	}
	s.numbered(p)
	if err := s.filter(p, q); err != nil {
		return nil, err
	}
	if err := s.count(p, q.Facets); err != nil {
		return nil, err
	}
	q.Cursor, q.Facets, q.Limit, q.OnTexts = "", nil, 0, nil
	encoded, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode the question: %w", err)
	}
	sum := sha256.Sum256(encoded)
	p.digest = base64.RawURLEncoding.EncodeToString(sum[:9])
	return p, nil
}

// narrow says which collections are looked at.
func (s *Schema) narrow(p *Plan, q Question) error {
	for _, collection := range q.Types {
		if _, ok := s.Type(collection); !ok {
			return invalid("types", "%s cannot be searched; use one of %s", collection, strings.Join(texts(s.Collections()), ", "))
		}
	}
	p.Collections = slices.Clone(q.Types)
	if len(p.Collections) == 0 {
		p.Collections = s.Collections()
	}
	if p.Annotations == nil {
		return nil
	}
	p.Collections = slices.DeleteFunc(p.Collections, func(collection syntax.NSID) bool {
		t, _ := s.Type(collection)
		if t.Annotations == "" || p.Annotated != "" && t.Annotations != p.Annotated {
			return true
		}
		p.Annotated = t.Annotations
		return false
	})
	if len(p.Collections) == 0 {
		return invalid("annotations", "none of the types asked for has annotations")
	}
	if c := p.Annotations.ConfidenceMin; c != nil && (*c < 0 || *c > maxConfidence+1) {
		return invalid("annotations", "a confidence is 0 to 1000, not %d", *c)
	}
	return nil
}

func (s *Schema) filter(p *Plan, q Question) error {
	filters := q.Filters
	if len(q.Languages) > 0 {
		filters = append(slices.Clone(filters), Filter{Field: LanguageField, Values: q.Languages})
	}
	for _, f := range filters {
		path, kinds := s.field(f.Field)
		switch {
		case len(kinds) == 0:
			return invalid("filters", "there is no field %q; use one of %s", f.Field, s.fields())
		case len(f.Values) > MaxValues:
			return invalid("filters", "%s has %d values, of %d at most: narrow the question", f.Field, len(f.Values), MaxValues)
		}
		all := Clause{Field: path, Kinds: kinds, Values: []string{}}
		for _, value := range f.Values {
			c, err := s.compare(Clause{Field: path, Kinds: kinds}, value, true, func(remedy, problem string, args ...any) error {
				return invalid("filters", f.Field+": "+problem+"; "+remedy, args...)
			})
			if err != nil {
				return err
			}
			all.Kinds, all.Values, all.Words = c.Kinds, append(all.Values, c.Values...), c.Words
		}
		if len(f.Values) > 1 && all.Is(Text) {
			return invalid("filters", "%s takes one value, since it is compared by words", f.Field)
		}
		if path == LanguageField && f.Field == LanguageField && len(q.OnTexts) > 0 {
			if all.Or = s.onTexts(q.OnTexts); all.Or == nil {
				return invalid("filters", "more than %d texts: narrow the question", MaxValues)
			}
		}
		p.Clauses = append(p.Clauses, all)
	}
	return nil
}

// onTexts is the condition that a record is about one of some texts; nil if they are too many.
func (s *Schema) onTexts(texts []string) *Clause {
	if len(texts) > MaxValues {
		return nil
	}
	return &Clause{Field: ExpressionField, Kinds: []Kind{Term}, Values: texts}
}

func (s *Schema) count(p *Plan, facets []string) error {
	if len(facets) > MaxFacets {
		return invalid("facets", "there are %d, of %d at most", len(facets), MaxFacets)
	}
	for _, name := range facets {
		if name == LabelFacet {
			if p.Annotations == nil {
				return invalid("facets", "%s counts annotations, and the question asks for none", name)
			}
			p.Facets = append(p.Facets, Facet{Name: name})
			continue
		}
		path, kinds := s.field(name)
		i := slices.IndexFunc(kinds, func(k Kind) bool { return k != Text })
		if i < 0 && path != LabelField {
			return invalid("facets", "hits are not counted by %q: use a field whose values are terms, numbers or flags", name)
		}
		kind := Term
		if i >= 0 {
			kind = kinds[i]
		}
		p.Facets = append(p.Facets, Facet{Name: path, Kind: kind})
	}
	return nil
}

// cursor is what a page's end is told by: a store's own position, and whose it is.
type cursor struct {
	Question string          `json:"q"`
	Position json.RawMessage `json:"p"`
}

// NextCursor is what leads from a position, which is the store's own, to the next page.
func (p *Plan) NextCursor(position any) (string, error) {
	raw, err := json.Marshal(position)
	if err != nil {
		return "", fmt.Errorf("encode the cursor: %w", err)
	}
	encoded, err := json.Marshal(cursor{p.digest, raw})
	if err != nil {
		return "", fmt.Errorf("encode the cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(encoded), nil
}

// Position reads a cursor that [Plan.NextCursor] has made of the same question.
func (p *Plan) Position(position any) error {
	raw, err := base64.RawURLEncoding.DecodeString(p.cursor)
	var c cursor
	if err != nil || json.Unmarshal(raw, &c) != nil || c.Question != p.digest {
		return ErrCursor
	}
	decoder := json.NewDecoder(bytes.NewReader(c.Position))
	decoder.DisallowUnknownFields() // of another store, whose positions are others
	if decoder.Decode(position) != nil {
		return ErrCursor
	}
	return nil
}

// Prepare checks a completion and gives the words that a title has to go on with.
func (c Completion) Prepare(s *Schema) (collections []syntax.NSID, words string, limit int, err error) {
	words, limit = Normalise(c.Text), cmp.Or(c.Limit, 10)
	switch {
	case words == "" || len(c.Text) > MaxText:
		return nil, "", 0, invalid("text", "write at least one letter, and no more than %d bytes", MaxText)
	case limit < 1 || limit > MaxCompleted:
		return nil, "", 0, invalid("limit", "it is %d; use 1 to %d", c.Limit, MaxCompleted)
	}
	for _, collection := range c.Types {
		if _, ok := s.Type(collection); !ok {
			return nil, "", 0, invalid("types", "%s cannot be searched", collection)
		}
	}
	if collections = c.Types; len(collections) == 0 {
		collections = s.Collections()
	}
	return collections, beginning(words), limit, nil
}

const (
	maxCompletions = 8  // words of a title that a completion can begin with
	maxBeginning   = 96 // bytes of a title, from there on
)

// Completions are what a title is completed by: its words from each of the first on.
func Completions(title string) []string {
	rest, out := Normalise(title), []string(nil)
	for rest != "" && len(out) < maxCompletions {
		out = append(out, beginning(rest))
		_, rest, _ = strings.Cut(rest, " ")
	}
	return out
}

func beginning(words string) string {
	if len(words) > maxBeginning {
		return strings.TrimSpace(strings.ToValidUTF8(words[:maxBeginning], ""))
	}
	return words
}

// Complete gives hits as completions, those whose title begins with the words first.
func Complete(hits []Hit, words string, limit int) []Completed {
	begins := func(h Hit) bool { return strings.HasPrefix(Normalise(h.Title), words) }
	slices.SortStableFunc(hits, func(a, b Hit) int {
		switch x, y := begins(a), begins(b); {
		case x == y:
			return 0
		case x:
			return -1
		default:
			return 1
		}
	})
	out := []Completed{}
	for _, h := range hits[:min(limit, len(hits))] {
		out = append(out, Completed{URI: h.URI, CID: h.CID, Type: h.Type, Title: h.Title})
	}
	return out
}
