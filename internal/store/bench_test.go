package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// corpus makes changes like those of an import: expressions with annotation
// layers that refer to them, some 700 bytes each, in a few hundred repositories.
type corpus struct{ made int }

func (c *corpus) did(n int) syntax.DID { return syntax.DID(fmt.Sprintf("did:plc:%024d", n%300)) }

func (c *corpus) next() store.Change {
	n := c.made
	c.made++
	pair := n / 2
	expression := key(c.did(pair), expressions, fmt.Sprintf("3l%011d", pair))
	change := store.Change{Action: record.Create, Rev: rev(n), CID: cid(n), CreatedAt: time.Unix(int64(1_700_000_000+n), 0)}
	if n%2 == 0 {
		parent := key(c.did(pair), expressions, fmt.Sprintf("3l%011d", pair-pair%50))
		change.Key = expression
		change.Filter = map[string]any{"kind": "sentence", "languages": []string{"yo", "en"}, "parentRef": parent.String()}
		change.Refs = []record.Ref{{Path: "parentRef", Target: parent.URI()}}
	} else {
		change.Key = key(c.did(pair), layers, fmt.Sprintf("3m%011d", pair))
		change.Filter = map[string]any{"expression": expression.String(), "kind": "token-tag"}
		change.Refs = []record.Ref{
			{Path: "expression", Target: expression.URI()},
			{Path: "ontologyRef", Target: key(c.did(0), "pub.layers.ontology.ontology", "universal").URI()},
		}
	}
	change.JSON = json.RawMessage(fmt.Sprintf(`{"$type":%q,"n":%d,"text":%q}`, change.Key.Collection, n, strings.Repeat("word and word ", 45)))
	return change
}

// BenchmarkApply measures what one writer commits, fsync included, with the outbox
// rows for every projection. An op is a record.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{200, 1000, 5000} {
		b.Run(fmt.Sprintf("commits=1/records=%d", size), func(b *testing.B) {
			benchmarkApply(b, size, func(batch *store.Batch, source *corpus) {
				c := source.next()
				batch.Changes = append(batch.Changes, c)
				data := syntax.CID("bafyreidata")
				batch.Repos = append(batch.Repos, store.RepoUpdate{DID: c.Key.DID, Rev: &c.Rev, CommitCID: &c.CID, Data: &data})
			})
		})
		b.Run(fmt.Sprintf("commits=100/records=%d", size), func(b *testing.B) {
			benchmarkApply(b, size, func(batch *store.Batch, source *corpus) {
				c := source.next()
				batch.Changes = append(batch.Changes, c)
				if len(batch.Changes)%100 == 0 {
					batch.Repos = append(batch.Repos, store.RepoUpdate{DID: c.Key.DID, Rev: &c.Rev, CommitCID: &c.CID})
				}
			})
		})
	}
}

func benchmarkApply(b *testing.B, size int, add func(*store.Batch, *corpus)) {
	w, source := newWorld(b), &corpus{}
	for b.Loop() {
		// One op of the benchmark is a whole batch; what is reported counts records.
		batch := store.Batch{Host: "relay.test", Cursor: int64(source.made)}
		for range size {
			add(&batch, source)
		}
		if err := w.writer.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(source.made)/b.Elapsed().Seconds(), "records/s")
}
