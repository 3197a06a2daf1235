// Package layout says in which partitions, with which indexes, the store keeps what a
// catalog describes. The store itself knows no lexicons.
package layout

import (
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Partitions are one for each collection, with what its lists filter on.
func Partitions(c *catalog.Catalog) []store.Partition {
	var all []store.Partition
	for _, collection := range c.Collections() {
		p := store.Partition{Collection: collection.NSID}
		for _, list := range collection.Lists {
			p.Lists = append(p.Lists, store.ListIndex{
				Repo: list.RepoRequired, Required: columns(list.Required), Optional: columns(list.Optional),
			})
		}
		all = append(all, p)
	}
	return all
}

func columns(filters []catalog.Filter) (out []store.Column) {
	for _, f := range filters {
		out = append(out, store.Column{Name: f.Name, Array: f.Array})
	}
	return out
}
