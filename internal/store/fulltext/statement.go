package fulltext

import (
	"strconv"
	"strings"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
)

// visible leaves out the documents of inactive accounts. OFFSET 0 keeps the planner
// from making a join of it.
const visible = "NOT EXISTS (SELECT FROM repos WHERE repos.did = d.did AND NOT repos.active OFFSET 0)"

// statement is a query for the documents d that match a plan.
type statement struct {
	plan    *query.Plan
	columns strings.Builder
	where   []string
	args    []any
	ranking string // the tsquery to rank by; empty if nothing is ranked
	scored  string // its parameter
}

// matching has the plan's conditions and nothing else.
func matching(plan *query.Plan) *statement {
	st := &statement{plan: plan}
	st.where = []string{"NOT d.deleted", "d.collection = ANY (" + st.arg(plan.Collections) + "::text[])"}
	var ranking []string
	for _, c := range plan.Clauses {
		condition := st.condition(c)
		if c.Not {
			condition = "NOT coalesce(" + condition + ", false)"
		} else if c.Field == "" {
			ranking = append(ranking, tsquery(c, ""))
		}
		st.where = append(st.where, condition)
	}
	if plan.Annotations != nil {
		st.where = append(st.where, "EXISTS (SELECT FROM annotations a WHERE a.collection = d.collection AND a.did = d.did AND a.rkey = d.rkey"+st.annotation()+")")
	}
	st.where = append(st.where, visible)
	st.ranking = strings.Join(ranking, " & ")
	return st
}

func (st *statement) begin(parts ...string) {
	for _, p := range parts {
		st.columns.WriteString(p)
	}
}

func (st *statement) arg(v any) string {
	st.args = append(st.args, v)
	return "$" + strconv.Itoa(len(st.args))
}

// score is how well a document matches: shorter ones better, and words in the title
// ten times as well as others.
func (st *statement) score() string {
	if st.ranking == "" {
		return "0::float8"
	}
	if st.scored == "" {
		st.scored = st.arg(st.ranking) // not before: a parameter that is not used is an error
	}
	return "ts_rank(d.vector, " + st.scored + "::text::tsquery, 1)::float8"
}

// page is the whole statement, for what follows a place.
func (st *statement) page(after *place, limit int) string {
	if after != nil {
		rest := "(d.sort_key, d.did, d.collection, d.rkey) > (" + strings.Join([]string{
			st.arg(after.Sort), st.arg(after.Key.DID), st.arg(after.Key.Collection), st.arg(after.Key.Rkey),
		}, ", ") + ")"
		if st.ranking != "" {
			score := st.arg(after.Score)
			rest = "(" + st.score() + " < " + score + " OR " + st.score() + " = " + score + " AND " + rest + ")"
		}
		st.where = append(st.where, rest)
	}
	order := "d.sort_key, d.did, d.collection, d.rkey"
	if st.ranking != "" {
		order = "score DESC, " + order
	}
	return st.columns.String() + " FROM search_documents d WHERE " + strings.Join(st.where, " AND ") + " ORDER BY " + order + " LIMIT " + st.arg(limit)
}

// some is the documents that match as a subquery, no more than limit.
func (st *statement) some(columns string, limit int) string {
	return "(SELECT " + columns + " FROM search_documents d WHERE " + strings.Join(st.where, " AND ") + " LIMIT " + st.arg(limit) + ")"
}

func (st *statement) condition(c query.Clause) string {
	if or := c.Or; or != nil {
		c.Or = nil
		return "(" + st.condition(c) + " OR " + st.condition(*or) + ")"
	}
	switch c.Field {
	case "":
		found := "d.vector @@ " + st.arg(tsquery(c, "")) + "::text::tsquery"
		if len(c.Words) > 1 {
			found += " AND d.words LIKE " + st.arg(pattern(c))
		}
		return "(" + found + " OR d.partial AND d.words LIKE " + st.arg(pattern(c)) + ")"
	case query.LabelField:
		return "(d.vector @@ " + st.arg(tsquery(c, labelWord(""))) + "::text::tsquery AND d.fields->>'" + query.LabelField + "' LIKE " + st.arg(pattern(c)) + ")"
	case query.TypeField:
		return "d.collection = ANY (" + st.arg(c.Values) + "::text[])"
	case query.LanguageField:
		return st.terms(withinLanguage, c.Values)
	}
	if c.Range != nil {
		return st.within(c.Field, *c.Range)
	}
	var either []string
	for _, kind := range c.Kinds {
		if kind == query.Text {
			either = append(either, "((d.partial OR d.vector @@ "+st.arg(tsquery(c, ""))+"::text::tsquery) AND d.fields->>"+st.arg(c.Field)+"::text LIKE "+st.arg(pattern(c))+")")
		} else {
			either = append(either, st.terms(c.Field, c.Values))
		}
	}
	return "(" + strings.Join(either, " OR ") + ")"
}

// terms is whether the document has any of a field's values.
func (st *statement) terms(field string, values []string) string {
	terms := make([]string, len(values))
	for i, v := range values {
		terms[i] = term(field, record.FilterTerm(v))
	}
	return "d.terms && " + st.arg(terms) + "::text[]"
}

// within is whether the document has a number in a range at a field, which may be
// something else in another collection.
func (st *statement) within(field string, r query.Range) string {
	prefix := st.arg(term(field, ""))
	number := "substr(t, length(" + prefix + "::text) + 1)"
	return "EXISTS (SELECT FROM unnest(d.terms) t WHERE starts_with(t, " + prefix + ") AND CASE WHEN " + number + " ~ '^-?[0-9]{1,18}$' THEN " +
		number + "::bigint BETWEEN " + st.arg(r.Min) + " AND " + st.arg(r.Max) + " END)"
}

// tsquery spells the words that all have to be there, each after a prefix.
func tsquery(c query.Clause, prefix string) string {
	parts := make([]string, len(c.Words))
	for i, w := range c.Words {
		parts[i] = lexeme(prefix + w)
	}
	if c.Prefix {
		parts[len(parts)-1] += ":*"
	}
	return strings.Join(parts, " & ")
}

// pattern finds words one after the other. Words hold no % and no _.
func pattern(c query.Clause) string {
	end := " %"
	if c.Prefix {
		end = "%"
	}
	return "% " + strings.Join(c.Words, " ") + end
}

// annotation are the conditions on one annotation a, each with an AND before.
func (st *statement) annotation() string {
	f := st.plan.Annotations
	conditions := ""
	if f.Label != "" {
		label := st.arg(f.Label)
		conditions += " AND hashtextextended(a.label, 0) = hashtextextended(" + label + "::text COLLATE \"C\", 0) AND a.label <> '' AND a.label = " + label
	}
	if f.Value != "" {
		conditions += " AND a.value = " + st.arg(f.Value)
	}
	if f.Anchor != "" {
		conditions += " AND a.anchor_kind = " + st.arg(f.Anchor)
	}
	if f.ConfidenceMin != nil {
		conditions += " AND a.confidence >= " + st.arg(*f.ConfidenceMin)
	}
	if f.ConfidenceMax != nil {
		conditions += " AND a.confidence <= " + st.arg(*f.ConfidenceMax)
	}
	return conditions
}
