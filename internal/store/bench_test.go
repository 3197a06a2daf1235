package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
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

// BenchmarkEventLog measures what the log of events costs: the same batches are
// applied with it and without, in turns, so that whatever else the machine does falls
// on both. Half of each batch replaces records. An op is a batch for each.
func BenchmarkEventLog(b *testing.B) {
	for _, size := range []int{1, 20, 200, 1000} {
		b.Run(fmt.Sprintf("records=%d", size), func(b *testing.B) {
			var took [2][]time.Duration
			var worlds [2]*world
			for i := range worlds {
				db := storetest.New(b, partitions...)
				worlds[i] = &world{Database: db, writer: store.NewWriter(db.Pool, routes, silent), t: b}
				if i == 1 {
					worlds[i].writer.WithoutEvents()
				}
				release, _, err := worlds[i].writer.Lock(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(release)
			}
			source, n := &corpus{}, 0
			var before []store.Change
			for b.Loop() {
				var batch store.Batch
				for range (size + 1) / 2 {
					batch.Changes = append(batch.Changes, source.next())
				}
				for i := range min(len(before), size/2) {
					c := before[i]
					c.Rev, c.CID = rev(1_000_000+n), cid(1_000_000+n)
					batch.Changes = append(batch.Changes, c)
				}
				before = batch.Changes[:(size+1)/2]
				n++
				for turn := range worlds {
					i := (turn + n) % 2
					start := time.Now()
					if err := worlds[i].writer.Apply(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(start))
				}
			}
			// What the server's session has worked, which other load does not change.
			spent := func(i int) float64 {
				var pid int
				err := worlds[i].Pool.QueryRow(b.Context(), `
					SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% writer' LIMIT 1`).Scan(&pid)
				if err != nil {
					b.Fatal(err)
				}
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
				if err != nil {
					b.Skipf("only a server on this machine's Linux says what it works: %v", err)
				}
				ns, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
				if err != nil {
					b.Fatal(err)
				}
				return ns / 1000 / float64(len(took[i])*size)
			}
			median := func(of []time.Duration) float64 {
				slices.Sort(of)
				return float64(of[len(of)/2].Microseconds()) / float64(size)
			}
			b.ReportMetric(spent(0), "server-µs/record")
			b.ReportMetric(spent(1), "server-µs/record-without")
			b.ReportMetric(median(took[0]), "µs/record")
			b.ReportMetric(median(took[1]), "µs/record-without")
		})
	}
}
