package discovery

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// diary is written all the time, by an account of its own: texts, each with a layer on
// it, some of which are changed and deleted again. No question is about it but its own.
type diary struct {
	world   *world
	author  syntax.DID
	entries []diaryEntry
	commits atomic.Int64
	err     error // of the last commit; for [diary.end]

	stop    context.CancelFunc
	running sync.WaitGroup
}

type diaryEntry struct{ text, layer record.Key }

// writeEvery is how often, so that the indexer is at work and has time left.
const writeEvery = 100 * time.Millisecond

func (w *world) keepDiary(t *testing.T) *diary {
	t.Helper()
	author, err := w.CreateAccount("diarist")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	d := &diary{world: w, author: author, stop: cancel}
	clock := syntax.NewTIDClock(1)
	d.running.Go(func() {
		tick := time.NewTicker(writeEvery)
		defer tick.Stop()
		for n := 0; d.err == nil; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.err = d.write(n, clock)
				d.commits.Add(1)
			}
		}
	})
	t.Cleanup(func() { d.stop(); d.running.Wait() })
	return d
}

// write makes one commit: a new entry mostly, and of each five one changes the entry
// before, and one deletes another.
func (d *diary) write(n int, clock *syntax.TIDClock) error {
	var writes []simulate.Write
	last := len(d.entries) - 1
	switch n % 5 {
	case 3:
		writes = d.entry(record.Update, d.entries[last], "revised")
	case 4:
		gone := d.entries[last-1]
		d.entries = append(d.entries[:last-1], d.entries[last])
		for _, key := range []record.Key{gone.layer, gone.text} {
			writes = append(writes, simulate.Write{Action: record.Delete, Collection: key.Collection, Rkey: key.Rkey})
		}
	default:
		e := diaryEntry{
			text:  record.Key{DID: d.author, Collection: expression, Rkey: syntax.RecordKey(clock.Next())},
			layer: record.Key{DID: d.author, Collection: layer, Rkey: syntax.RecordKey(clock.Next())},
		}
		d.entries = append(d.entries, e)
		writes = d.entry(record.Create, e, "fresh")
	}
	_, err := d.world.Commit(d.author, writes...)
	return err
}

func (d *diary) entry(action record.Action, e diaryEntry, word string) []simulate.Write {
	at := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	return []simulate.Write{
		{Action: action, Collection: e.text.Collection, Rkey: e.text.Rkey, Value: map[string]any{
			"$type": string(e.text.Collection), "createdAt": at, "id": string(e.text.Rkey), "kind": "paragraph", "text": "dagboek " + word,
		}},
		{Action: action, Collection: e.layer.Collection, Rkey: e.layer.Rkey, Value: map[string]any{
			"$type": string(e.layer.Collection), "createdAt": at, "expression": e.text.String(), "kind": "span", "subkind": "diary", "formalism": "none",
			"annotations": []any{map[string]any{
				"uuid": map[string]any{"value": "0b9f6c1e-0000-4000-8000-000000000001"}, "label": word,
				"anchor": map[string]any{"textSpan": map[string]any{"byteStart": int64(0), "byteEnd": int64(7)}},
			}},
		}},
	}
}

// more waits until so many more commits are published.
func (d *diary) more(n int64) {
	for begun := d.commits.Load(); d.commits.Load() < begun+n; {
		time.Sleep(writeEvery)
	}
}

// end ends the writing and returns questions about all that is written.
func (d *diary) end(t *testing.T) []question {
	t.Helper()
	d.stop()
	d.running.Wait()
	require.NoError(t, d.err)
	tr := d.world.truth()
	all := []question{}
	for _, word := range []string{"fresh", "revised"} {
		texts := uris(tr.of(expression, func(p published) bool { return p.text("text") == "dagboek "+word }))
		layers := uris(tr.of(layer, func(l published) bool {
			return l.text("subkind") == "diary" && l.each("annotations")[0]["label"] == word
		}))
		require.NotEmpty(t, texts)
		all = append(all,
			question{"texts with " + word, elasticsearch, "/search", url.Values{"q": {"dagboek " + word}, "limit": {"100"}}, hitsRead, texts},
			question{"layers with " + word, elasticsearch, "/annotations", url.Values{"subkind": {"diary"}, "label": {word}, "limit": {"100"}}, hitsRead, layers},
		)
	}
	for _, e := range []diaryEntry{d.entries[0], d.entries[len(d.entries)-1]} {
		all = append(all, question{
			fmt.Sprintf("what annotates %s", e.text), neo4j, "/graph/nodes/" + escape(e.text.String()) + "/neighbors",
			url.Values{"edge_type": {"ANNOTATES"}, "direction": {"in"}}, neighborsRead, []string{e.layer.String()},
		})
	}
	return all
}
