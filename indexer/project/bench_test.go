package project

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/fixture"
)

func BenchmarkProjections(b *testing.B) {
	cat := loadCatalog(b)
	for _, nsid := range []syntax.NSID{"pub.layers.expression.expression", "pub.layers.annotation.annotationLayer", "pub.layers.graph.graphEdge"} {
		c, _ := cat.Collection(nsid)
		rec, _ := recordOf(b, cat, nsid, fixture.Full(nsid))
		for name, run := range map[string]func() error{
			"document": func() error { _, err := Document(c, rec); return err },
			"subgraph": func() error { _, err := Subgraph(c, rec); return err },
		} {
			if _, ok := Mapping(c); name == "document" && !ok {
				continue
			}
			b.Run(c.Name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(rec.Value)))
				for b.Loop() {
					if err := run(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
