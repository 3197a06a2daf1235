package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Kind tells how a query is answered.
type Kind int

// The kinds of queries. They are known by what a query takes and answers, never by its name.
const (
	Other Kind = iota // anything else
	Get               // takes uri; answers {uri, cid, value} with a record of Collection
	List              // takes limit, cursor and filters; answers {Items: [{uri, cid, value}], cursor}
)

// Query is an XRPC query of the lexicons.
type Query struct {
	NSID        syntax.NSID
	Kind        Kind
	Collection  syntax.NSID // of Get and List
	Params      []Param     // sorted by name
	Items       string      // of List: the property of the answer that holds the page, "records" or "entries"
	Output      *Schema     // what it answers; nil where the lexicon does not say. Read only
	Errors      []string    // names of the errors that the lexicon declares
	Description string
}

// Param is a parameter of a query.
type Param struct {
	Name        string
	Type        Type   // String, Integer or Boolean; of the elements where Repeated
	Format      string // of strings
	Required    bool
	Repeated    bool // an array: may be given more than once
	Default     any  // string, int or bool; nil without one
	Minimum     *int64
	Maximum     *int64
	MaxLength   *int // of strings, in bytes
	KnownValues []string
	Enum        []string // of strings: the only values there are, if any are named
	Description string

	Filter string // the property of the record that it filters on, as in Filter.Name; empty for none
	Repo   bool   // filters on the repository
}

func (c *Catalog) addQuery(compiler *compiler, nsid syntax.NSID, def lexicon.SchemaQuery) error {
	q := &Query{NSID: nsid, Description: text(def.Description)}
	for _, e := range def.Errors {
		q.Errors = append(q.Errors, e.Name)
	}
	if err := q.setParams(def.Parameters); err != nil {
		return err
	}
	if def.Output != nil && def.Output.Schema != nil {
		output, err := compiler.part(def.Output.Schema.Inner, string(nsid))
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		q.Output = output
		c.classify(q)
	}
	if q.Kind == List {
		if err := c.collections[q.Collection].addList(q); err != nil {
			return err
		}
	}
	c.queries = append(c.queries, q)
	return nil
}

func (q *Query) setParams(def *lexicon.SchemaParams) error {
	if def == nil {
		return nil
	}
	for name, inner := range def.Properties {
		p := Param{Name: name, Required: slices.Contains(def.Required, name)}
		s := &Schema{}
		element := inner.Inner
		if array, ok := element.(lexicon.SchemaArray); ok {
			p.Repeated, p.Description = true, text(array.Description)
			element = array.Items.Inner
		}
		if err := fillLeaf(s, element); err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
		p.Type, p.Format, p.Default, p.KnownValues = s.Type, s.Format, s.Default, s.KnownValues
		p.Minimum, p.Maximum, p.MaxLength = s.Minimum, s.Maximum, s.MaxLength
		for _, v := range s.Enum {
			if text, ok := v.(string); ok {
				p.Enum = append(p.Enum, text)
			}
		}
		p.Description = cmp.Or(p.Description, s.Description)
		q.Params = append(q.Params, p)
	}
	slices.SortFunc(q.Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (q *Query) param(name string) *Param {
	for i := range q.Params {
		if q.Params[i].Name == name {
			return &q.Params[i]
		}
	}
	return nil
}

// classify sets what kind of query it is, from its output and parameters.
func (c *Catalog) classify(q *Query) {
	if collection, ok := c.recordIn(q.Output); ok {
		if uri := q.param("uri"); uri != nil && uri.Required && uri.Format == "at-uri" {
			q.Kind, q.Collection = Get, collection
		}
		return
	}
	for _, p := range q.Output.Properties {
		if p.Schema.Type != Array {
			continue
		}
		if collection, ok := c.recordIn(p.Schema.Items); ok && q.param("limit") != nil && q.param("cursor") != nil {
			q.Kind, q.Collection, q.Items = List, collection, p.Name
			return
		}
	}
}

// recordIn finds the collection whose records an object {uri, cid, value} has.
func (c *Catalog) recordIn(view *Schema) (syntax.NSID, bool) {
	if view.Property("uri") == nil || view.Property("cid") == nil || view.Property("value") == nil {
		return "", false
	}
	nsid := syntax.NSID(view.Property("value").Schema.Def)
	_, ok := c.collections[nsid]
	return nsid, ok
}

// Separated spells a lexicon's camelCase in lower case, with a character between the
// words: edgeType gives edge_type.
func Separated(name string, between byte) string {
	var b strings.Builder
	for i, r := range name {
		if 'A' <= r && r <= 'Z' {
			if i > 0 {
				b.WriteByte(between)
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
