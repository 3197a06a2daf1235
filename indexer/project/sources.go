package project

import (
	"slices"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// KnowledgeSources are the knowledge bases that the collections' lexicons name, sorted.
// Records may name others.
func KnowledgeSources(collections []*catalog.Collection) []string {
	var out []string
	seen := map[*catalog.Schema]bool{}
	var look func(*catalog.Schema)
	look = func(s *catalog.Schema) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		if s.Def == defKnowledgeRef {
			if source := s.Property("source"); source != nil {
				out = append(out, source.Schema.KnownValues...)
			}
			return
		}
		look(s.Items)
		for _, p := range s.Properties {
			look(p.Schema)
		}
		for _, v := range s.Variants {
			look(v)
		}
	}
	for _, c := range collections {
		look(c.Schema)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
