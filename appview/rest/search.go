package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
)

// searcher answers questions; *search.Searcher and *fulltext.Searcher do.
type searcher interface {
	Search(context.Context, query.Question) (query.Answer, error)
	Complete(context.Context, query.Completion) (query.Titles, error)
}

// Search is what the search endpoints answer from.
type Search struct {
	First searcher
	// Fallback answers while First cannot; nil for none.
	Fallback searcher
	Schema   *query.Schema // of both
	From     record.Target // the projection that First answers from
}

// firstTime is how long the first searcher may take where there is a fallback.
const firstTime = 4 * time.Second

// searched is an answer, and whether it is the fallback's.
type searched struct {
	query.Answer
	Degraded bool `json:"degraded,omitempty"`
}

func (s *Service) searchRoutes() []Route {
	if s.search.Schema == nil {
		return nil
	}
	names := []string{}
	for _, t := range s.types {
		if t.searched(s.search.Schema) {
			names = append(names, t.name)
		}
	}
	slices.Sort(names)
	q := Text("q", "What to look for. All words have to be there, whatever their case, accents and normal form; `\"two words\"` one after the other; `begin*`; `-word` or `-\"some words\"` not there; `lang:yo` as the parameter `language`; `field:value` for a property of the records, or for `label`, `type` and `knowledge`; `field>8`, also `>=`, `<` and `<=`, for whole numbers. `confidence>800`, `annotation.label:PERSON`, `annotation.value:…` and `annotation.anchor:…` hold of the same annotation, compared exactly.", "oríkì lang:yo -draft")
	q.MaxLength = pointer(query.MaxText)
	kinds := Repeated(Choice("type", "Only records of this type; several are any of them.", names...))
	found := func(example any) Answer {
		return Answer{Description: "A page of hits.", Schema: answerSchema(), Example: example, Lines: hitLineSchema()}
	}
	text := Route{
		Path: "/search", ID: "search", Summary: "Full text over every type that can be searched",
		Description: "The best hits first, or the newest where nothing is to be ranked. Highlights say where in the record the words are, by bytes of UTF-8 and by characters. Facets count the hits by type and language on the first page. A walk through the pages sees the index as it was at its begin for two minutes after each page.",
		Params:      []Param{q, kinds, languageParam("Only records that name this language or a narrower one themselves; several are any of them. An annotation layer often names none, and is not found then by the language of its text: ask `/annotations` for that, with `language` and `corpus` or `expression`."), Limit(query.MaxLimit, query.DefaultLimit), Cursor()},
		Answer:      found(exampleHits(false)), Handler: s.searched(s.textQuestion),
		Cache: Cache{For: keepFound, By: s.typesAsked, From: s.search.From},
	}
	annotations := Route{
		Path: "/annotations", ID: "search.annotations", Summary: "Annotation layers with a matching annotation",
		Description: "`label`, `value`, `confidence_min` and `anchor` hold of the same annotation, which is shown with its layer: up to 100 of each. Labels and values are compared exactly. The facets are the labels of all matching annotations, and the kinds, subkinds and formalisms of their layers. `language` is one that the layer names itself; where `corpus` or `expression` is given, also one that its text is in.",
		Params: []Param{
			Text("kind", "Only layers of this kind.", "span"), Text("subkind", "Only layers of this subkind.", "named-entity"), Text("formalism", "Only layers in this formalism.", "universal-dependencies"),
			Formatted("expression", "at-uri", "Only layers on this expression.", exampleURI(expressions)),
			Formatted("corpus", "at-uri", "Only layers on an expression in this corpus.", exampleURI(corpora)),
			Formatted("persona", "at-uri", "Only layers by this persona.", exampleURI("pub.layers.persona.persona")),
			languageParam("Only layers that name this language or a narrower one themselves or, where `corpus` or `expression` is given, whose text does; several are any of them."),
			Text("label", "Only annotations with exactly this label.", "PERSON"), Text("value", "Only annotations with exactly this value.", "Q34311"),
			Number("confidence_min", "Only annotations with at least this confidence.", 0, 1000, 0),
			Text("anchor", "Only annotations that are anchored so.", "textSpan"),
			Limit(query.MaxLimit, query.DefaultLimit), Cursor(),
		},
		Answer: found(exampleHits(true)), Handler: s.searched(s.annotationQuestion),
		Cache: Cache{For: keepFound, Of: []syntax.NSID{layers, memberships, expressions}, From: s.search.From},
	}
	rows := []Route{text, annotations, s.searchExport(text, s.textQuestion), s.searchExport(annotations, s.annotationQuestion)}
	for i := range rows {
		rows[i].Tag = "search"
	}
	for _, t := range s.types {
		if t.searched(s.search.Schema) {
			rows = append(rows, s.completionRoute(t))
		}
	}
	return rows
}

func (t *recordType) searched(schema *query.Schema) bool {
	_, ok := schema.Type(t.collection.NSID)
	return ok
}

func pointer[T any](v T) *T { return &v }

func languageParam(description string) Param {
	return Repeated(Param{Param: catalog.Param{Name: "language", Type: catalog.String, MaxLength: pointer(128), Description: description}, Example: "yo"})
}

func (s *Service) completionRoute(t *recordType) Route {
	return Route{
		Path: "/" + t.name + "/autocomplete", ID: "complete." + t.name, Tag: t.name, Group: traffic.Complete,
		Summary:     "Titles of " + t.name + " with words that begin so",
		Description: "What is typed begins any word of the title; titles that begin with it come first, then the newest.",
		Params:      []Param{Required(Text("q", "What was typed so far.", "yor")), Limit(query.MaxCompleted, 10)},
		Answer: Answer{
			Description: "Completions.",
			Schema:      Object(map[string]Schema{"completions": List(completionSchema()), "degraded?": degradedSchema(), "incomplete?": incompleteSchema()}),
			Example:     completions{Titles: query.Titles{Completions: []query.Completed{{URI: syntax.ATURI(exampleURI(t.collection.NSID)), CID: exampleCID, Type: t.collection.NSID, Title: "Yorùbá"}}}},
		},
		Handler: s.complete(t),
		Cache:   Cache{For: keepFound, Of: []syntax.NSID{t.collection.NSID}, From: s.search.From},
	}
}

func (a searched) isDegraded() bool    { return a.Degraded || a.Incomplete }
func (a completions) isDegraded() bool { return a.Degraded || a.Incomplete }

// textQuestion is what /search asks.
func (s *Service) textQuestion(c *Call) (query.Question, error) {
	q := query.Question{Text: c.Word("q"), Languages: c.Texts("language"), Facets: []string{query.TypeField, query.LanguageField}}
	if len(c.Texts("type")) > 0 {
		q.Types = s.typesAsked(c)
	}
	return q, nil
}

// typesAsked are the collections that a search goes through: those that the parameter
// type names, or all that can be searched.
func (s *Service) typesAsked(c *Call) (collections []syntax.NSID) {
	names := c.Texts("type")
	for _, t := range s.types {
		if slices.Contains(names, t.name) || len(names) == 0 && t.searched(s.search.Schema) {
			collections = append(collections, t.collection.NSID)
		}
	}
	return collections
}

// annotationQuestion is what /annotations asks.
func (s *Service) annotationQuestion(c *Call) (query.Question, error) {
	q := query.Question{
		Languages:   c.Texts("language"),
		Annotations: &query.AnnotationFilter{Label: c.Word("label"), Value: c.Word("value"), Anchor: c.Word("anchor")},
		Facets:      []string{query.LabelFacet, "kind", "subkind", "formalism"},
	}
	if n, ok := c.Int("confidence_min"); ok && n > 0 {
		q.Annotations.ConfidenceMin = pointer(int64(n))
	}
	for _, field := range []string{"kind", "subkind", "formalism"} {
		if value, given := c.Text(field); given {
			q.Filters = append(q.Filters, query.Filter{Field: field, Values: []string{value}})
		}
	}
	for parameter, field := range map[string]string{"expression": "expression", "persona": "metadata.personaRef"} {
		if _, given := c.Text(parameter); given {
			key, err := s.Key(c, parameter)
			if err != nil {
				return q, err
			}
			q.Filters = append(q.Filters, query.Filter{Field: field, Values: []string{key.String()}})
		}
	}
	slices.SortFunc(q.Filters, func(a, b query.Filter) int { return cmpText(a.Field, b.Field) }) // cursors are of the same question
	var texts []string                                                                           // that the question is about
	if i := slices.IndexFunc(q.Filters, func(f query.Filter) bool { return f.Field == query.ExpressionField }); i >= 0 {
		texts = q.Filters[i].Values
	}
	if _, given := c.Text("corpus"); given {
		key, err := s.Key(c, "corpus")
		if err != nil {
			return q, err
		}
		in, err := s.expressionsIn(c.Ctx(), key)
		if err != nil {
			return q, err
		}
		texts = in
		q.Filters = append(q.Filters, query.Filter{Field: query.ExpressionField, Values: in})
	}
	if len(q.Languages) == 0 || len(texts) == 0 {
		return q, nil
	}
	var err error
	q.OnTexts, err = s.reads.InLanguages(c.Ctx(), texts, q.Languages)
	return q, err
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// expressionsIn are those in a corpus, which only the store knows.
func (s *Service) expressionsIn(ctx context.Context, corpus record.Key) ([]string, error) {
	found, err := s.reads.Joined(ctx, memberships, "corpusRef", corpus.URI(), "expressionRef", query.MaxValues+1)
	if err != nil {
		return nil, err
	}
	if len(found) > query.MaxValues {
		return nil, TooLarge("the corpus has more than %d expressions, which is as many as one search goes through: ask by expression, or without the corpus", query.MaxValues)
	}
	return found, nil
}

// searched answers with a page of hits, or with a stream of them.
func (s *Service) searched(question func(*Call) (query.Question, error)) Handler {
	stream := s.streamHits(question)
	return func(c *Call) error {
		if wantsLines(c.Context) {
			return stream(c)
		}
		q, err := question(c)
		if err != nil {
			return err
		}
		q.Limit, q.Cursor = c.Limit(), c.Word("cursor")
		answer, err := s.ask(c.Ctx(), q)
		if err != nil {
			return err
		}
		return c.Answer(answer)
	}
}

// ask has a question answered, by the fallback if need be.
func (s *Service) ask(ctx context.Context, q query.Question) (answer searched, err error) {
	err = s.either(ctx, func(ctx context.Context, by searcher) (err error) {
		answer.Answer, err = by.Search(ctx, q)
		return err
	}, &answer.Degraded)
	return answer, refusal(err)
}

// completions are found ones, and whether they are the fallback's.
type completions struct {
	query.Titles
	Degraded bool `json:"degraded,omitempty"`
}

func (s *Service) complete(t *recordType) Handler {
	return func(c *Call) error {
		var answer completions
		err := s.either(c.Ctx(), func(ctx context.Context, by searcher) (err error) {
			answer.Titles, err = by.Complete(ctx, query.Completion{Types: []syntax.NSID{t.collection.NSID}, Text: c.Word("q"), Limit: c.Limit()})
			return err
		}, &answer.Degraded)
		if err != nil {
			return refusal(err)
		}
		return c.Answer(answer)
	}
}

// either asks the first searcher, and the fallback if the first cannot answer or knows
// nothing of the cursor, which is then the fallback's.
func (s *Service) either(ctx context.Context, ask func(context.Context, searcher) error, degraded *bool) error {
	if s.search.Fallback == nil {
		return ask(ctx, s.search.First)
	}
	hurried, cancel := context.WithTimeout(ctx, firstTime)
	defer cancel()
	err := ask(hurried, s.search.First)
	unavailable := errors.Is(err, query.ErrUnavailable) || hurried.Err() != nil && ctx.Err() == nil
	if err == nil || !unavailable && !errors.Is(err, query.ErrCursor) {
		return err
	}
	*degraded = true
	again := ask(ctx, s.search.Fallback)
	if unavailable && errors.Is(again, query.ErrCursor) {
		return query.ErrCursorExpired // it is the first one's, which has gone
	}
	return again
}

// refusal says what is wrong with a question to who asked it.
func refusal(err error) error {
	var wrong *query.SyntaxError
	var invalid *query.Invalid
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return xrpc.InvalidRequest("parameter \"q\" %s", wrong)
	case errors.As(err, &invalid):
		return xrpc.InvalidRequest("%s", invalid)
	case errors.Is(err, query.ErrCursor):
		return xrpc.InvalidRequest("%s", query.ErrCursor)
	case errors.Is(err, query.ErrCursorExpired):
		return &xrpc.Error{Status: http.StatusBadRequest, Name: "CursorExpired", Message: query.ErrCursorExpired.Error()}
	case errors.Is(err, query.ErrUnavailable):
		return xrpc.Unavailable(err)
	default:
		return err
	}
}
