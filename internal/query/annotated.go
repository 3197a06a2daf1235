package query

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Range is what an integer is in, both ends included.
type Range struct{ Min, Max int64 }

// AnnotationField begins the names of what users can ask of annotations: annotation.label,
// annotation.value and annotation.anchor, compared exactly, and annotation.confidence, for
// which confidence is short. All that a question says of annotations holds of the same one.
const AnnotationField = "annotation."

// Fields of an annotation.
const (
	AnnotationLabel  = AnnotationField + "label"
	AnnotationValue  = AnnotationField + "value"
	AnnotationAnchor = AnnotationField + "anchor"
	ConfidenceField  = AnnotationField + "confidence"
)

const maxConfidence = 1000

func annotationField(path string) bool { return strings.HasPrefix(path, AnnotationField) }

// ofAnnotations are the fields that a question can name of annotations; none if no type has any.
func (s *Schema) ofAnnotations(name string) (path string, kinds []Kind) {
	if len(s.Annotated()) == 0 {
		return name, nil
	}
	switch name {
	case AnnotationLabel, AnnotationValue, AnnotationAnchor:
		return name, []Kind{Term}
	case ConfidenceField:
		return ConfidenceField, []Kind{Number}
	case "confidence":
		if len(s.kinds[name]) == 0 {
			return ConfidenceField, []Kind{Number}
		}
	}
	return name, nil
}

// compareNumber completes a clause with the range that an operator and a number stand for.
func (c Clause) compareNumber(operator, value string, wrong func(remedy, problem string, args ...any) error) (Clause, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	confidence := c.Field == ConfidenceField
	switch {
	case err != nil && confidence:
		return c, wrong("use a whole number: a confidence is 0 to 1000, so 0.8 is 800", "%q is no confidence", value)
	case err != nil:
		return c, wrong(remedies[Number], "%q is no number to compare with", value)
	case confidence && (n < 0 || n > maxConfidence):
		return c, wrong("use 0 to 1000", "there is no confidence of %d", n)
	}
	c.Kinds, c.Range = []Kind{Number}, &Range{Min: math.MinInt64, Max: math.MaxInt64}
	switch operator {
	case ">=":
		c.Range.Min = n
	case "<=":
		c.Range.Max = n
	case ">":
		if n == math.MaxInt64 {
			return c, wrong("use a smaller number", "there is no number above %d", n)
		}
		c.Range.Min = n + 1
	case "<":
		if n == math.MinInt64 {
			return c, wrong("use a larger number", "there is no number below %d", n)
		}
		c.Range.Max = n - 1
	default:
		c.Range.Min, c.Range.Max = n, n
	}
	return c, nil
}

// ofOne takes what is asked of annotations out of the clauses and adds it to the filter,
// since it has to hold of the same annotation.
func ofOne(clauses []Clause, filter *AnnotationFilter) ([]Clause, *AnnotationFilter, error) {
	asks := func(c Clause) bool { return annotationField(c.Field) }
	if !slices.ContainsFunc(clauses, asks) {
		return clauses, filter, nil
	}
	all := AnnotationFilter{}
	if filter != nil {
		all = *filter
	}
	for _, c := range clauses {
		if !asks(c) {
			continue
		}
		if c.Range != nil {
			all.narrow(*c.Range)
			continue
		}
		of := map[string]*string{AnnotationLabel: &all.Label, AnnotationValue: &all.Value, AnnotationAnchor: &all.Anchor}[c.Field]
		if *of != "" && *of != c.Values[0] {
			return nil, nil, invalid("text", "%s is asked for twice, and an annotation has one", c.Field)
		}
		*of = c.Values[0]
	}
	return slices.DeleteFunc(slices.Clone(clauses), asks), &all, nil
}

func (f *AnnotationFilter) narrow(r Range) {
	if r.Min > math.MinInt64 && (f.ConfidenceMin == nil || *f.ConfidenceMin < r.Min) {
		f.ConfidenceMin = &r.Min
	}
	if r.Max < math.MaxInt64 && (f.ConfidenceMax == nil || *f.ConfidenceMax > r.Max) {
		f.ConfidenceMax = &r.Max
	}
}

// numbered leaves those collections that have a number at each path that is compared: no
// other can match.
func (s *Schema) numbered(p *Plan) {
	for _, c := range p.Clauses {
		if c.Range == nil || c.Not {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(p.Collections), func(collection syntax.NSID) bool {
			t, _ := s.Type(collection)
			return !slices.Contains(t.Fields, Field{Path: c.Field, Kind: Number})
		})
		if len(left) > 0 { // none would be taken for all
			p.Collections = left
		}
	}
}
