package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
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

// BenchmarkRead measures single reads from many goroutines, and beside them the
// bare SQL that an answer cannot do without.
func BenchmarkRead(b *testing.B) {
	w, source := newWorld(b), &corpus{}
	var keys []record.Key
	for range 10 {
		var batch store.Batch
		for range 2000 {
			c := source.next()
			batch.Changes = append(batch.Changes, c)
			keys = append(keys, c.Key)
		}
		if err := w.writer.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Pool.Exec(context.Background(), "VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
	parallel := func(name string, read func(record.Key) error) {
		b.Run(name, func(b *testing.B) {
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := read(keys[int(next.Add(7919))%len(keys)]); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
	ctx := context.Background()
	parallel("get", func(k record.Key) error {
		_, err := w.reader.Get(ctx, k)
		return err
	})
	parallel("get/bare", func(k record.Key) error {
		var cid string
		var value []byte
		const bare = "SELECT cid, value FROM records WHERE collection = $1 AND did = $2 AND rkey = $3"
		return w.Pool.QueryRow(ctx, bare, string(k.Collection), string(k.DID), string(k.Rkey)).Scan(&cid, &value)
	})
	parallel("list", func(k record.Key) error {
		_, err := w.reader.List(ctx, store.Query{Collection: k.Collection, Repo: &k.DID, Limit: 50})
		return err
	})
	parallel("load=500", func(k record.Key) error {
		at := max(0, int(k.Rkey[len(k.Rkey)-1])*len(keys)/256-500)
		_, err := w.reader.Load(ctx, keys[at:at+500])
		return err
	})
}

// BenchmarkOutbox measures how fast one dispatcher claims rows and has them deleted,
// 500 at a time, out of a backlog.
func BenchmarkOutbox(b *testing.B) {
	w, source := newWorld(b), &corpus{}
	ctx := context.Background()
	rows := 0
	for b.Loop() {
		claimed, err := w.outbox.Claim(ctx, record.Search, 500, time.Hour)
		if err == nil {
			err = w.outbox.Done(ctx, record.Search, claimed)
		}
		if err != nil {
			b.Fatal(err)
		}
		rows += len(claimed)
		if len(claimed) < 500 {
			b.StopTimer()
			for range 10 {
				var batch store.Batch
				for range 2000 {
					batch.Changes = append(batch.Changes, source.next())
				}
				if err := w.writer.Apply(ctx, batch); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
