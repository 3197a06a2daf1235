package rest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// recordType is a kind of record under the name that paths have for it.
type recordType struct {
	name       string // plural: annotation-layers
	collection *catalog.Collection
	lists      []*catalog.Query // the one that the name is from first
}

// ownAuthority is where the lexicons are whose types have short names. Those of an
// operator go by their NSIDs, so that adding one renames nothing.
const ownAuthority = "pub.layers."

// taken are first segments of paths that are no record types.
var taken = []string{"admin", "annotations", "events", "export", "graph", "references", "search", "stats"}

// recordTypes names every collection that has a lexicon. The name of a type is what
// its lexicon's list query lists: listAnnotationLayers makes annotation-layers. What
// ends in -defs, for definitions, goes without: listExperimentDefs makes experiments.
// Where two have one name, that of each gets its namespace before it: listEntries of
// pub.layers.changelog makes changelog-entries.
func recordTypes(c *catalog.Catalog) []*recordType {
	var types []*recordType
	count := map[string]int{}
	for _, collection := range c.Collections() {
		t := &recordType{collection: collection, lists: listsOf(c, collection), name: string(collection.NSID)}
		if len(t.lists) > 0 && strings.HasPrefix(string(collection.NSID), ownAuthority) {
			t.name = plural(t.lists[0].NSID)
		}
		count[t.name]++
		types = append(types, t)
	}
	for _, t := range types {
		if count[t.name] > 1 {
			t.name = catalog.Separated(t.collection.Namespace, '-') + "-" + t.name
		}
	}
	seen := map[string]bool{}
	for _, t := range types {
		if seen[t.name] || slices.Contains(taken, t.name) {
			t.name = string(t.collection.NSID)
		}
		seen[t.name] = true
	}
	slices.SortFunc(types, func(a, b *recordType) int { return strings.Compare(a.name, b.name) })
	return types
}

// listsOf are the collection's list queries. The first is the one whose name has most
// in common with the collection's.
func listsOf(c *catalog.Catalog, collection *catalog.Collection) (lists []*catalog.Query) {
	for _, q := range c.Queries() {
		if q.Kind == catalog.List && q.Collection == collection.NSID && strings.HasPrefix(q.NSID.Name(), "list") {
			lists = append(lists, q)
		}
	}
	slices.SortStableFunc(lists, func(a, b *catalog.Query) int {
		return cmp.Compare(inCommon(b.NSID, collection.Name), inCommon(a.NSID, collection.Name))
	})
	return lists
}

// inCommon counts the letters with which both what a query lists and name begin.
func inCommon(query syntax.NSID, name string) int {
	listed := strings.ToLower(strings.TrimPrefix(query.Name(), "list"))
	name = strings.ToLower(name)
	n := 0
	for n < min(len(listed), len(name)) && listed[n] == name[n] {
		n++
	}
	return n
}

func plural(query syntax.NSID) string {
	name := catalog.Separated(strings.TrimPrefix(query.Name(), "list"), '-')
	if stem, ok := strings.CutSuffix(name, "-defs"); ok {
		return stem + "s"
	}
	return name
}
