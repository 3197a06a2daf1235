// Package catalog says what the index knows of a collection: its schema, whether a
// record of it is valid, what a record refers to, and which queries ask for it.
//
// Everything follows from the lexicon files, read once by [Load] (load.go), turned
// into trees with their references resolved (schema.go, compile.go), and into
// queries (query.go) with what each of their parameters filters on (filter.go). A
// new record type is a new lexicon file.
//
// [Catalog.Check] takes a record's block the whole way (check.go): a strict pass
// over the bytes that also writes the JSON form (scan.go, datamodel.go), then a walk
// along the schema that validates and collects the references (walk.go). Neither
// builds the value in memory, so a hostile block costs no more than an honest one
// of its size.
package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Catalog is what the loaded lexicons say. It is safe for concurrent use once
// [Catalog.Follow], if needed at all, has been called.
type Catalog struct {
	collections map[syntax.NSID]*Collection
	sorted      []*Collection
	queries     []*Query
	types       map[string]*Schema // every definition, by its $type
	foreign     map[syntax.NSID]*Collection
	prefixes    []string // followed patterns without their *, as "app.bsky."
}

// Collection is a kind of record that the index holds.
type Collection struct {
	NSID        syntax.NSID
	Namespace   string // the NSID's last segment but one: annotation of pub.layers.annotation.annotationLayer
	Name        string // the NSID's last segment: annotationLayer
	Description string
	// Foreign is a collection that is followed without a lexicon. Its records
	// are checked against the data model alone, and it has no Schema and no Lists.
	Foreign bool
	// Schema is the record's object. It is shared: do not change it.
	Schema *Schema
	// Lists are the queries that list the collection, sorted by NSID.
	Lists []Listing

	filters map[string]Filter // of all Lists together, by property
}

// Collections are those that have a lexicon, sorted by NSID. Followed foreign
// ones are not among them, since a pattern has no end of them.
func (c *Catalog) Collections() []*Collection { return slices.Clone(c.sorted) }

// Collection finds a collection that has a lexicon or is followed. The NSID may
// be any text: what is no NSID is found nowhere.
func (c *Catalog) Collection(nsid syntax.NSID) (*Collection, bool) {
	if found, ok := c.collections[nsid]; ok {
		return found, true
	}
	if found, ok := c.foreign[nsid]; ok {
		return found, true
	}
	for _, prefix := range c.prefixes {
		if strings.HasPrefix(string(nsid), prefix) {
			if _, err := syntax.ParseNSID(string(nsid)); err == nil {
				// Not kept: whoever writes records chooses how many there are.
				return newCollection(nsid), true
			}
		}
	}
	return nil, false
}

// Queries are all queries of the lexicons, sorted by NSID.
func (c *Catalog) Queries() []*Query { return slices.Clone(c.queries) }

// Follow adds foreign collections: each name is an NSID (app.bsky.feed.post) or a
// pattern for all collections below a prefix (app.bsky.*). A collection that has
// a lexicon stays what it is. Call it before the catalog is shared.
func (c *Catalog) Follow(names ...string) error {
	for _, name := range names {
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			if _, err := syntax.ParseNSID(prefix + "name"); err != nil || !strings.HasSuffix(prefix, ".") {
				return fmt.Errorf("follow %q: expected a pattern like app.bsky.*", name)
			}
			c.prefixes = append(c.prefixes, prefix)
			continue
		}
		nsid, err := syntax.ParseNSID(name)
		if err != nil {
			return fmt.Errorf("follow %q: expected an NSID or a pattern like app.bsky.*: %w", name, err)
		}
		c.foreign[nsid] = newCollection(nsid)
	}
	return nil
}

// newCollection is a collection of which no lexicon has been seen.
func newCollection(nsid syntax.NSID) *Collection {
	segments := strings.Split(string(nsid), ".")
	last := len(segments) - 1
	return &Collection{NSID: nsid, Namespace: segments[last-1], Name: segments[last], Foreign: true}
}

// Followed names what is indexed, as [Catalog.Follow] takes it: the collections that
// have a lexicon, the foreign ones, and patterns; sorted.
func (c *Catalog) Followed() []string {
	var names []string
	for nsid := range c.collections {
		names = append(names, string(nsid))
	}
	for nsid := range c.foreign {
		names = append(names, string(nsid))
	}
	for _, prefix := range c.prefixes {
		names = append(names, prefix+"*")
	}
	slices.Sort(names)
	return slices.Compact(names)
}
