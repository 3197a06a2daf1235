package search

import (
	"strconv"
	"strings"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
)

// What a request says of the fields that documents have; see indexer/project. Their
// words are normalised and split at spaces, so a query's are compared as they are.

const titleBoost = 3 // of a word in the title over one in the text

var shown = []string{"uri", "cid", "collection", "createdAt", "value.$title"}

// request is the body of a search without its view.
func request(plan *query.Plan) map[string]any {
	source := shown
	if plan.Marker() != nil {
		source = append(source[:len(source):len(source)], "value.$text")
	}
	body := map[string]any{
		"query": matching(plan), "size": plan.Limit + 1, "sort": order(plan.Ranked()), "_source": source, "track_total_hits": false,
	}
	if plan.First {
		body["track_total_hits"] = query.MaxCounted
		if len(plan.Facets) > 0 {
			body["aggs"] = facets(plan)
		}
	}
	return body
}

func order(ranked bool) []any {
	sort := []any{
		map[string]any{"value.$sort": map[string]any{"order": "asc", "unmapped_type": "long"}},
		map[string]any{"uri": map[string]any{"order": "asc", "unmapped_type": "keyword"}},
	}
	if ranked {
		return append([]any{map[string]any{"_score": "desc"}}, sort...)
	}
	return sort
}

func filtered(filters ...any) map[string]any {
	return map[string]any{"bool": map[string]any{"filter": filters}}
}

func anyOf(conditions ...any) map[string]any {
	return map[string]any{"bool": map[string]any{"should": conditions, "minimum_should_match": 1}}
}

func matching(plan *query.Plan) map[string]any {
	must, filter, not := []any{}, []any{}, []any{}
	for _, c := range plan.Clauses {
		condition := condition(c)
		switch {
		case c.Not:
			not = append(not, condition)
		case c.Field == "":
			must = append(must, condition)
		default:
			filter = append(filter, condition)
		}
	}
	if plan.Annotations != nil {
		filter = append(filter, map[string]any{"nested": map[string]any{
			"path": "value." + plan.Annotated, "query": filtered(annotation(plan)...), "score_mode": "none", "inner_hits": annotationFields(plan),
			"ignore_unmapped": true,
		}})
	}
	return map[string]any{"bool": map[string]any{"must": must, "filter": filter, "must_not": not}}
}

func condition(c query.Clause) any {
	if or := c.Or; or != nil {
		c.Or = nil
		return anyOf(condition(c), condition(*or))
	}
	switch c.Field {
	case "":
		title := words("value.$titleWords", c)
		for _, by := range title {
			for _, options := range by.(map[string]any) {
				options.(map[string]any)["boost"] = titleBoost
			}
		}
		return anyOf(words("value.$words", c), title)
	case query.LabelField:
		return words("value.$labelWords", c)
	case query.TypeField:
		return terms("collection", c.Values)
	case query.KnowledgeField:
		return terms("value.$knowledge", filterTerms(c.Values))
	case query.LanguageField:
		either := []any{terms("value.$languages", filterTerms(c.Values))}
		for _, tag := range c.Values {
			either = append(either, map[string]any{"prefix": map[string]any{"value.$languages": tag + "-"}})
		}
		return anyOf(either...)
	}
	if c.Range != nil {
		return map[string]any{"range": map[string]any{"value." + c.Field: map[string]any{"gte": c.Range.Min, "lte": c.Range.Max}}}
	}
	var either []any
	for _, kind := range c.Kinds {
		field := "value." + c.Field
		switch kind {
		case query.Text:
			either = append(either, words(field, c))
		case query.Term:
			either = append(either, terms(field, filterTerms(c.Values)))
		default:
			either = append(either, terms(field, c.Values))
		}
	}
	return anyOf(either...)
}

func terms(field string, values []string) any {
	if values == nil {
		values = []string{}
	}
	return map[string]any{"terms": map[string]any{field: values}}
}

func filterTerms(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = record.FilterTerm(v)
	}
	return out
}

// maxExpansions bounds how many words the last word of a phrase can begin.
const maxExpansions = 1000

// words is a query with one member, whose own one member is the field's options.
func words(field string, c query.Clause) map[string]any {
	phrase := strings.Join(c.Words, " ")
	switch {
	case c.Prefix && len(c.Words) == 1:
		return map[string]any{"prefix": map[string]any{field: map[string]any{"value": phrase}}}
	case c.Prefix:
		return map[string]any{"match_phrase_prefix": map[string]any{field: map[string]any{"query": phrase, "max_expansions": maxExpansions}}}
	case len(c.Words) == 1:
		return map[string]any{"term": map[string]any{field: map[string]any{"value": phrase}}}
	default:
		return map[string]any{"match_phrase": map[string]any{field: map[string]any{"query": phrase}}}
	}
}

// annotation are the conditions on one annotation, a nested object.
func annotation(plan *query.Plan) []any {
	a, path := plan.Annotations, "value."+plan.Annotated+"."
	conditions := []any{}
	for field, value := range map[string]string{"label": a.Label, "value": a.Value, "anchor.$kind": a.Anchor} {
		if value != "" {
			conditions = append(conditions, terms(path+field, []string{value}))
		}
	}
	confidence := map[string]any{}
	if a.ConfidenceMin != nil {
		confidence["gte"] = *a.ConfidenceMin
	}
	if a.ConfidenceMax != nil {
		confidence["lte"] = *a.ConfidenceMax
	}
	if len(confidence) > 0 {
		conditions = append(conditions, map[string]any{"range": map[string]any{path + "confidence": confidence}})
	}
	return conditions
}

// annotationFields asks for the annotations that match, by their columns: their
// source would have to be cut out of the whole layer's.
func annotationFields(plan *query.Plan) map[string]any {
	var fields []string
	for _, field := range []string{
		"uuid.value", "label", "value", "text", "anchor.$kind", "confidence", "tokenIndex", "anchor.tokenRef.tokenIndex", "anchor.tokenRefSequence.anchorTokenIndex",
		"anchor.textSpan.byteStart", "anchor.textSpan.byteEnd", "anchor.pageAnchor.textSpan.byteStart", "anchor.pageAnchor.textSpan.byteEnd",
	} {
		fields = append(fields, "value."+plan.Annotated+"."+field)
	}
	return map[string]any{"name": "annotations", "size": query.MaxMatching, "_source": false, "docvalue_fields": fields, "sort": []string{"_doc"}}
}

func facets(plan *query.Plan) map[string]any {
	out := map[string]any{}
	for i, f := range plan.Facets {
		field := "value." + f.Name
		switch f.Name {
		case query.TypeField:
			field = "collection"
		case query.LanguageField:
			field = "value.$languages"
		case query.LabelField:
			field = "value.$labels"
		case query.KnowledgeField:
			field = "value.$knowledge"
		case query.LabelFacet:
			path := "value." + plan.Annotated
			out[strconv.Itoa(i)] = map[string]any{"nested": map[string]any{"path": path}, "aggs": map[string]any{"of": map[string]any{
				"filter": filtered(annotation(plan)...), "aggs": map[string]any{"by": buckets(path + ".label")},
			}}}
			continue
		}
		out[strconv.Itoa(i)] = buckets(field)
	}
	return out
}

func buckets(field string) map[string]any {
	return map[string]any{"terms": map[string]any{
		"field": field, "size": query.MaxBuckets, "order": []any{map[string]any{"_count": "desc"}, map[string]any{"_key": "asc"}},
	}}
}
