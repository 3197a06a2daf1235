package catalog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Listing is one query that lists a collection, as the store needs it to lay out indexes.
type Listing struct {
	Query syntax.NSID
	// RepoRequired is set where the query always names one repository.
	RepoRequired bool
	// Required and Optional are what the query's parameters filter on besides
	// the repository, sorted by the parameter's name.
	Required, Optional []Filter
}

// Filter is a property of a record by which a list query filters.
type Filter struct {
	Name      string // of the property, which is also the name in Checked.Filter
	Array     bool   // the property is an array; a record matches if any element does
	ObjectRef bool   // the property is a reference object; the record it names counts
}

// renamed are the list parameters that filter on a property of another name.
var renamed = map[syntax.NSID]map[string]string{
	"pub.layers.changelog.listByCollection": {"collection": "subjectCollection"},
}

// objectRef is a reference to a record or to something inside of one; its
// property recordRef is the record's AT-URI.
const objectRef = "pub.layers.defs#objectRef"

// addList adds a list query, and says in its parameters what they filter on.
func (c *Collection) addList(q *Query) error {
	list := Listing{Query: q.NSID}
	for i := range q.Params {
		p := &q.Params[i]
		switch {
		case p.Name == "limit" || p.Name == "cursor":
		case p.Name == "repo" && p.Format == "at-identifier":
			p.Repo = true
			list.RepoRequired = p.Required
		default:
			f, err := c.filterFor(q.NSID, p.Name)
			if err != nil {
				return err
			}
			p.Filter = f.Name
			if p.Required {
				list.Required = append(list.Required, f)
			} else {
				list.Optional = append(list.Optional, f)
			}
		}
	}
	c.Lists = append(c.Lists, list)
	return nil
}

// filterFor finds the property that a list parameter filters on.
func (c *Collection) filterFor(query syntax.NSID, param string) (Filter, error) {
	name := param
	if other, ok := renamed[query][param]; ok {
		name = other
	}
	property := c.Schema.Property(name)
	if property == nil {
		return Filter{}, fmt.Errorf("parameter %s: %s has no property %q to filter on", param, c.NSID, name)
	}
	f := Filter{Name: name}
	element := property.Schema
	if element.Type == Array {
		f.Array, element = true, element.Items
	}
	switch {
	case element.Def == objectRef:
		f.ObjectRef = true
	case element.Type != String && element.Type != Integer && element.Type != Boolean:
		return Filter{}, fmt.Errorf("parameter %s: property %q of %s is of type %s, by which no list can filter", param, name, c.NSID, element.Type)
	}
	if c.filters == nil {
		c.filters = map[string]Filter{}
	}
	c.filters[name] = f
	return f, nil
}

// terms is what a record is found by through filter f: a string, or a []string
// without duplicates if the property is an array; nil if it has nothing to be
// found by. The value is of a record that is valid.
func (f Filter) terms(value reader) any {
	if !f.Array {
		if term, ok := f.term(&value); ok {
			return term
		}
		return nil
	}
	var terms []string
	seen := map[string]struct{}{}
	for range value.container() {
		term, ok := f.term(&value)
		if _, twice := seen[term]; ok && !twice {
			seen[term] = struct{}{}
			terms = append(terms, term)
		}
	}
	if terms == nil {
		return nil
	}
	return terms
}

// term reads one value. Integers and booleans are found by their text, as a
// query's parameters give them.
func (f Filter) term(value *reader) (string, bool) {
	if f.ObjectRef {
		return f.recordRef(value)
	}
	switch v := value.scalar().(type) {
	case string:
		return strings.Clone(record.FilterTerm(v)), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false // null, where the lexicon allows it
}

func (f Filter) recordRef(value *reader) (term string, ok bool) {
	if value.major() != majorMap {
		value.skip()
		return "", false
	}
	for range value.container() {
		if value.string() != "recordRef" {
			value.skip()
			continue
		}
		if value.major() == majorText {
			term, ok = strings.Clone(record.FilterTerm(value.string())), true
		} else {
			value.skip()
		}
	}
	return term, ok
}
