package query

import (
	"math"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"
)

func schema() *Schema {
	return NewSchema([]Type{
		{Collection: "pub.layers.corpus.corpus", Fields: []Field{{"name", Text}, {"domain", Term}, {"expressionCount", Number}, {"open", Flag}}},
		{Collection: "pub.layers.annotation.annotationLayer", Annotations: "annotations", Fields: []Field{{"kind", Term}, {"name", Term}, {"metadata.personaRef", Term}}},
		{Collection: "pub.layers.resource.entry"}, {Collection: "pub.layers.changelog.entry"},
	})
}

func TestParse(t *testing.T) {
	text, term := []Kind{Text}, []Kind{Term}
	for typed, want := range map[string][]Clause{
		``:                       nil,
		"  \t　 ":                 nil,
		`Ọkà`:                    {{Kinds: text, Words: []string{"oka"}}},
		`a "b  C-d" -e`:          {{Kinds: text, Words: []string{"a"}}, {Kinds: text, Words: []string{"b", "c", "d"}}, {Not: true, Kinds: text, Words: []string{"e"}}},
		`-"a b"`:                 {{Not: true, Kinds: text, Words: []string{"a", "b"}}},
		`yor*`:                   {{Kinds: text, Words: []string{"yor"}, Prefix: true}},
		`"yor*"`:                 {{Kinds: text, Words: []string{"yor"}}},
		`大学`:                     {{Kinds: text, Words: []string{"大", "学"}}},
		`lang:YO-ng`:             {{Field: "language", Kinds: term, Values: []string{"yo-ng"}}},
		`label:"New York"`:       {{Field: "label", Kinds: text, Words: []string{"new", "york"}}},
		`type:corpus`:            {{Field: "type", Kinds: term, Values: []string{"pub.layers.corpus.corpus"}}},
		`type:Entry`:             {{Field: "type", Kinds: term, Values: []string{"pub.layers.changelog.entry", "pub.layers.resource.entry"}}},
		`-domain:legal`:          {{Not: true, Field: "domain", Kinds: term, Values: []string{"legal"}}},
		`expressionCount:007`:    {{Field: "expressionCount", Kinds: []Kind{Number}, Values: []string{"7"}}},
		`open:true`:              {{Field: "open", Kinds: []Kind{Flag}, Values: []string{"true"}}},
		`name:X1`:                {{Field: "name", Kinds: []Kind{Text, Term}, Words: []string{"x1"}, Values: []string{"X1"}}},
		`metadata.personaRef:at`: {{Field: "metadata.personaRef", Kinds: term, Values: []string{"at"}}},
		`"kind:of"`:              {{Kinds: text, Words: []string{"kind", "of"}}},
		`expressionCount>7`:      {{Field: "expressionCount", Kinds: []Kind{Number}, Range: &Range{8, math.MaxInt64}}},
		`-expressionCount<=-7`:   {{Not: true, Field: "expressionCount", Kinds: []Kind{Number}, Range: &Range{math.MinInt64, -7}}},
		`confidence>=800`:        {{Field: ConfidenceField, Kinds: []Kind{Number}, Range: &Range{800, math.MaxInt64}}},
		`annotation.confidence<9 confidence:5`: {
			{Field: ConfidenceField, Kinds: []Kind{Number}, Range: &Range{math.MinInt64, 8}}, {Field: ConfidenceField, Kinds: []Kind{Number}, Range: &Range{5, 5}},
		},
		`annotation.label:"B-PER"`: {{Field: "annotation.label", Kinds: term, Values: []string{"B-PER"}}},
		`"a>b"`:                    {{Kinds: text, Words: []string{"a", "b"}}},
		`knowledge:wikidata:Q42`:   {{Field: "knowledge", Kinds: term, Values: []string{"wikidata:Q42"}}},
	} {
		got, err := Parse(schema(), typed)
		require.NoError(t, err, typed)
		require.Equal(t, want, got, typed)
	}
}

func TestParseSaysWhereAndWhatToDo(t *testing.T) {
	for typed, want := range map[string]string{
		`a "b`:                    `at character 3: the quote is not closed; close it with another "`,
		`日本 ""`:                   `at character 4: the quotes are empty; write words between the quotes`,
		`a - b`:                   `at character 3: nothing follows the minus; write -word without a space between`,
		`domain: x`:               `at character 8: domain has no value; write domain:value without a space between`,
		`x !!!`:                   `at character 3: "!!!" is nothing to look for; use letters or digits`,
		`expressionCount:many`:    `at character 17: "many" is nothing to look for; use a whole number`,
		`open:1`:                  `at character 6: "1" is nothing to look for; use true or false`,
		`a nope:b`:                `at character 3: there is no field "nope"; use one of`,
		`http://x`:                `or put it in quotes ("http:...") to look for the words`,
		`type:nope`:               `at character 6: there is no type "nope" to search; use one of pub.layers.corpus.corpus`,
		`domain>3`:                `at character 1: domain is no number, which > compares; write domain:value`,
		`name>=3`:                 `name is no number`,
		`a>b`:                     `or put it in quotes ("a>...") to look for the words`,
		`expressionCount>`:        `at character 17: expressionCount has no value; write expressionCount>value without a space between`,
		`expressionCount>1.5`:     `at character 17: "1.5" is no number to compare with; use a whole number`,
		`confidence>0.8`:          `at character 12: "0.8" is no confidence; use a whole number: a confidence is 0 to 1000, so 0.8 is 800`,
		`confidence<1001`:         `there is no confidence of 1001; use 0 to 1000`,
		`-confidence>8`:           `at character 1: a minus before confidence cannot be answered; ask for the opposite`,
		"a\xff":                   `not valid UTF-8`,
		strings.Repeat("a ", 33):  `at character 65: the query has more than 32 parts; leave some out`,
		strings.Repeat("x", 2001): `of 2000 at most; ask for less`,
		strings.Repeat("字", 65):   `it has more than 64 words; shorten it`,
	} {
		_, err := Parse(schema(), typed)
		var wrong *SyntaxError
		require.ErrorAs(t, err, &wrong, typed)
		require.Contains(t, err.Error(), want, typed)
		require.LessOrEqual(t, wrong.Byte, len(typed))
	}
}

func TestPrepare(t *testing.T) {
	s := schema()
	p, err := s.Prepare(Question{Text: "x", Languages: []string{"YO"}, Filters: []Filter{{Field: "domain", Values: []string{"a", "b"}}}, Facets: []string{"lang", "domain"}})
	require.NoError(t, err)
	require.Equal(t, s.Collections(), p.Collections)
	require.Equal(t, []Clause{
		{Kinds: []Kind{Text}, Words: []string{"x"}},
		{Field: "domain", Kinds: []Kind{Term}, Values: []string{"a", "b"}}, {Field: "language", Kinds: []Kind{Term}, Values: []string{"yo"}},
	}, p.Clauses)
	require.Equal(t, []Facet{{"language", Term}, {"domain", Term}}, p.Facets)
	require.Equal(t, DefaultLimit, p.Limit)

	layers, err := s.Prepare(Question{Annotations: &AnnotationFilter{}})
	require.NoError(t, err)
	require.Equal(t, []syntax.NSID{"pub.layers.annotation.annotationLayer"}, layers.Collections)
	require.Equal(t, "annotations", layers.Annotated)

	asked := &AnnotationFilter{Anchor: "textSpan"}
	layers, err = s.Prepare(Question{Text: "kind:span confidence>799 annotation.label:PER confidence<900 confidence<=950", Annotations: asked})
	require.NoError(t, err)
	low, high := int64(800), int64(899)
	require.Equal(t, &AnnotationFilter{Label: "PER", Anchor: "textSpan", ConfidenceMin: &low, ConfidenceMax: &high}, layers.Annotations)
	require.Equal(t, AnnotationFilter{Anchor: "textSpan"}, *asked, "the question stays as it is")
	require.Len(t, layers.Clauses, 1)
	_, err = s.Prepare(Question{Text: "annotation.label:a annotation.label:b"})
	require.ErrorContains(t, err, "annotation.label is asked for twice")
	counted, err := s.Prepare(Question{Text: "expressionCount>1"})
	require.NoError(t, err)
	require.Equal(t, []syntax.NSID{"pub.layers.corpus.corpus"}, counted.Collections)

	// A cursor is good for its question alone, at any page size, and for the store that made it.
	type position struct{ A, B int }
	cursor, err := p.NextCursor(position{1, 2})
	require.NoError(t, err)
	same, err := s.Prepare(Question{Text: "x", Languages: []string{"YO"}, Filters: []Filter{{Field: "domain", Values: []string{"a", "b"}}}, Limit: 3, Cursor: cursor})
	require.NoError(t, err)
	var got position
	require.NoError(t, same.Position(&got))
	require.Equal(t, position{1, 2}, got)
	require.ErrorIs(t, same.Position(&struct{ A int }{}), ErrCursor)
	another, err := s.Prepare(Question{Text: "y", Cursor: cursor})
	require.NoError(t, err)
	require.ErrorIs(t, another.Position(&got), ErrCursor)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`a -"b c" lang:yo`, `"`, `-`, `:`, `a:`, "日本\xff", `type:entry*`} {
		f.Add(seed)
	}
	s := schema()
	f.Fuzz(func(t *testing.T, typed string) {
		clauses, err := Parse(s, typed)
		if err != nil {
			var wrong *SyntaxError
			require.ErrorAs(t, err, &wrong)
			return
		}
		for _, c := range clauses {
			require.True(t, len(c.Words) > 0 || len(c.Values) > 0 || c.Range != nil, "%q: %+v", typed, c)
		}
	})
}
