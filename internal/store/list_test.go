package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// expression is a record with what lists filter on.
func expression(did syntax.DID, n int, filter map[string]any) store.Change {
	c := put(key(did, expressions, fmt.Sprintf("r%04d", n)), 1)
	c.CreatedAt = time.Unix(int64(1_000_000-n), 0) // so lists have them by n
	c.Filter = filter
	return c
}

// rkeys lists and returns the record keys.
func (w *world) rkeys(query store.Query) []string {
	w.t.Helper()
	query.Limit = 100
	page, err := w.reader.List(w.t.Context(), query)
	require.NoError(w.t, err)
	require.Nil(w.t, page.Next)
	names := []string{}
	for _, r := range page.Records {
		names = append(names, string(r.Key.Rkey))
	}
	return names
}

func TestListsFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := random(600)
	w.apply(
		expression(alice, 0, map[string]any{"kind": "word", "languages": []string{"yo", "en"}}),
		expression(alice, 1, map[string]any{"kind": "sentence", "languages": []string{"en"}}),
		expression(bob, 2, map[string]any{"kind": "word", "languages": []string{"yo"}, "parentRef": "at://x"}),
		expression(alice, 3, nil),
		expression(alice, 4, map[string]any{"kind": record.FilterTerm(long), "parentRef": "at://y", "languages": []string{record.FilterTerm(long)}}),
		expression(alice, 5, map[string]any{"kind": record.FilterTerm("a\x00b")}),
		put(key(alice, corpora, "other"), 1),
	)
	match := func(name string, values ...string) store.Match { return store.Match{Name: name, Values: values} }
	repo, nobody := alice, syntax.DID("did:plc:nobody")
	for name, c := range map[string]struct {
		repo  *syntax.DID
		match []store.Match
		want  []string
	}{
		"everything":               {nil, nil, []string{"r0000", "r0001", "r0002", "r0003", "r0004", "r0005"}},
		"repository":               {&repo, nil, []string{"r0000", "r0001", "r0003", "r0004", "r0005"}},
		"unknown repository":       {&nobody, nil, []string{}},
		"one value":                {nil, []store.Match{match("kind", "word")}, []string{"r0000", "r0002"}},
		"value and repository":     {&repo, []store.Match{match("kind", "word")}, []string{"r0000"}},
		"one of several values":    {nil, []store.Match{match("kind", "sentence", "word", "none", "word")}, []string{"r0000", "r0001", "r0002"}},
		"two of several values":    {nil, []store.Match{match("kind", "sentence", "word"), match("parentRef", "at://x", "at://y")}, []string{"r0002"}},
		"no such value":            {nil, []store.Match{match("kind", "none")}, []string{}},
		"no such property":         {nil, []store.Match{match("nothing", "none")}, []string{}},
		"long value":               {nil, []store.Match{match("kind", long)}, []string{"r0004"}},
		"value with NUL":           {nil, []store.Match{match("kind", "a\x00b")}, []string{"r0005"}},
		"element":                  {&repo, []store.Match{match("languages", "yo")}, []string{"r0000"}},
		"element in any":           {nil, []store.Match{match("languages", "yo")}, []string{"r0000", "r0002"}},
		"any of several elements":  {&repo, []store.Match{match("languages", "yo", "en")}, []string{"r0000", "r0001"}},
		"long element":             {&repo, []store.Match{match("languages", long)}, []string{"r0004"}},
		"element and value":        {&repo, []store.Match{match("languages", "en"), match("kind", "sentence")}, []string{"r0001"}},
		"all of it":                {&repo, []store.Match{match("languages", "en"), match("kind", "sentence", "word"), match("parentRef", "at://z")}, []string{}},
		"quotes are no SQL":        {&repo, []store.Match{match("it's", "' OR true --")}, []string{}},
		"an element is not a part": {&repo, []store.Match{match("languages", "y", "e")}, []string{}},
	} {
		require.Equal(t, c.want, w.rkeys(store.Query{Collection: expressions, Repo: c.repo, Match: c.match}), name)
	}
	_, err := w.reader.List(t.Context(), store.Query{Collection: expressions, Limit: 0})
	require.Error(t, err)
	_, err = w.reader.List(t.Context(), store.Query{Collection: expressions, Limit: 1, Match: []store.Match{{Name: "kind"}}})
	require.Error(t, err)
}

func TestACollectionWithoutAPartitionIsFilteredToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := put(key(alice, posts, "one"), 1)
	c.Filter = map[string]any{"kind": "word", "languages": []string{"yo", "en"}}
	w.apply(c, put(key(alice, posts, "two"), 1))
	for _, m := range []store.Match{{Name: "kind", Values: []string{"word"}}, {Name: "languages", Values: []string{"en", "de"}}} {
		require.Equal(t, []string{"one"}, w.rkeys(store.Query{Collection: posts, Match: []store.Match{m}}))
	}
}

// walk goes through all pages; between them it lets others do something.
func walk(t *testing.T, limit int, list func(*store.Position) (store.Page, error), between func()) []record.Key {
	t.Helper()
	var keys []record.Key
	var after *store.Position
	for {
		page, err := list(after)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Records), limit)
		for _, r := range page.Records {
			keys = append(keys, r.Key)
		}
		if page.Next == nil {
			return keys
		}
		require.Len(t, page.Records, limit, "only the last page is short")
		after = page.Next
		between()
	}
}

func TestAPageWalkIsStableUnderConcurrentWrites(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 7, 50, 100} {
		t.Run(fmt.Sprint("limit=", limit), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			source := rand.New(rand.NewPCG(uint64(limit), 1))
			at := func() time.Time { return time.Unix(int64(1_000_000+source.IntN(40)), 0) } // many have the same time
			var there []store.Change
			for n := range 300 {
				c := expression([]syntax.DID{alice, bob}[n%2], n, map[string]any{"kind": "word", "languages": []string{"yo"}})
				c.CreatedAt = at()
				there = append(there, c)
			}
			w.apply(there...)
			others, mu := 0, sync.Mutex{}
			write := func() {
				mu.Lock()
				defer mu.Unlock()
				var batch []store.Change
				for range 5 { // before, between and after what the walk has seen
					others++
					c := expression(alice, 1000+others, map[string]any{"kind": "word", "languages": []string{"yo"}})
					c.CreatedAt = at()
					batch = append(batch, c)
					updated := there[source.IntN(len(there))]
					updated.Rev, updated.CreatedAt = rev(others+1), at()
					batch = append(batch, updated)
				}
				assert.NoError(t, w.writer.Apply(context.Background(), store.Batch{Changes: batch}))
			}
			var group errgroup.Group
			stop := make(chan struct{})
			group.Go(func() error {
				for range 100 { // no more, or a walk in steps of 1 might never arrive
					select {
					case <-stop:
						return nil
					default:
						write()
					}
				}
				return nil
			})
			defer func() { close(stop); require.NoError(t, group.Wait()) }()

			for name, query := range map[string]store.Query{
				"all":        {},
				"property":   {Match: []store.Match{{Name: "kind", Values: []string{"word"}}}},
				"properties": {Match: []store.Match{{Name: "kind", Values: []string{"word", "sentence"}}}},
				"repository": {Repo: pointer(alice), Match: []store.Match{{Name: "languages", Values: []string{"yo"}}}},
			} {
				query.Collection, query.Limit = expressions, limit
				seen := map[record.Key]int{}
				pages := 0
				keys := walk(t, limit, func(after *store.Position) (store.Page, error) {
					query.After = after
					return w.reader.List(t.Context(), query)
				}, func() {
					if pages++; pages < 10 {
						write()
					}
				})
				for _, k := range keys {
					seen[k]++
					require.Equal(t, 1, seen[k], "%s: %s twice", name, k)
				}
				for _, c := range there {
					if query.Repo == nil || *query.Repo == c.Key.DID {
						require.Equal(t, 1, seen[c.Key], "%s: %s was there at the start", name, c.Key)
					}
				}
			}
		})
	}
}

func TestTheOrderIsTheSameAtEveryPageSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for n := range 60 {
		c := expression([]syntax.DID{alice, bob}[n%2], n, nil)
		c.CreatedAt = time.Unix(int64(1_000_000+n%3), 0)
		changes = append(changes, c)
	}
	w.apply(changes...)
	slices.SortFunc(changes, func(a, b store.Change) int {
		if order := b.CreatedAt.Compare(a.CreatedAt); order != 0 {
			return order
		}
		return slices.Compare([]byte(a.Key.String()), []byte(b.Key.String()))
	})
	var want []record.Key
	for _, c := range changes {
		want = append(want, c.Key)
	}
	for limit := 1; limit <= 61; limit += 4 {
		require.Equal(t, want, walk(t, limit, func(after *store.Position) (store.Page, error) {
			return w.reader.List(t.Context(), store.Query{Collection: expressions, Limit: limit, After: after})
		}, func() {}), "newest first, then by URI; limit %d", limit)
	}
}

func TestForeignListsPickByRepositoryCollectionAndPrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []store.Change
	for i, collection := range []syntax.NSID{posts, "app.bsky.feed.like", "app.bskyother.thing", "com.example.note", "app.bsky.graph.follow"} {
		for j, did := range []syntax.DID{alice, bob} {
			c := put(key(did, collection, "r"), 1)
			c.CreatedAt = time.Unix(int64(1000-(i+j)/2), 0)
			changes = append(changes, c)
		}
	}
	w.apply(append(changes, put(key(alice, expressions, "own"), 1))...)
	for name, c := range map[string]struct {
		query store.ForeignQuery
		pick  func(record.Key) bool
	}{
		"all":                   {store.ForeignQuery{}, func(record.Key) bool { return true }},
		"repository":            {store.ForeignQuery{Repo: pointer(alice)}, func(k record.Key) bool { return k.DID == alice }},
		"collection":            {store.ForeignQuery{Collection: pointer(string(posts))}, func(k record.Key) bool { return k.Collection == posts }},
		"collection of lexicon": {store.ForeignQuery{Collection: pointer(string(expressions))}, func(record.Key) bool { return false }},
		"both": {store.ForeignQuery{Repo: pointer(bob), Collection: pointer(string(posts))},
			func(k record.Key) bool { return k.DID == bob && k.Collection == posts }},
		"prefix": {store.ForeignQuery{CollectionPrefix: pointer("app.bsky")},
			func(k record.Key) bool { return k.Collection != "com.example.note" }},
		"prefix with dot": {store.ForeignQuery{CollectionPrefix: pointer("app.bsky.feed.")},
			func(k record.Key) bool { return k.Collection == posts || k.Collection == "app.bsky.feed.like" }},
		"prefix and repository": {store.ForeignQuery{CollectionPrefix: pointer("com."), Repo: pointer(alice)},
			func(k record.Key) bool { return k.DID == alice && k.Collection == "com.example.note" }},
		"no such prefix":  {store.ForeignQuery{CollectionPrefix: pointer("app.%")}, func(record.Key) bool { return false }},
		"empty prefix":    {store.ForeignQuery{CollectionPrefix: pointer("")}, func(record.Key) bool { return true }},
		"prefix past all": {store.ForeignQuery{CollectionPrefix: pointer("zzz")}, func(record.Key) bool { return false }},
	} {
		var want []record.Key
		for _, change := range changes {
			if c.pick(change.Key) {
				want = append(want, change.Key)
			}
		}
		for _, limit := range []int{1, 3, 100} {
			got := walk(t, limit, func(after *store.Position) (store.Page, error) {
				c.query.Limit, c.query.After = limit, after
				return w.reader.ListForeign(t.Context(), c.query)
			}, func() {})
			require.ElementsMatch(t, want, got, "%s at limit %d", name, limit)
		}
	}
}

func TestScansMeetEveryRecordOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []record.Key
	for n := range 25 {
		c := expression([]syntax.DID{alice, bob}[n%2], n, nil)
		w.apply(c)
		want = append(want, c.Key)
	}
	var got, versions []record.Key
	for after := (record.Key{}); ; after = got[len(got)-1] {
		page, err := w.reader.Scan(t.Context(), expressions, after, 7)
		require.NoError(t, err)
		pending, err := w.reader.ScanVersions(t.Context(), expressions, after, 7)
		require.NoError(t, err)
		for i, r := range page {
			got, versions = append(got, r.Key), append(versions, pending[i].Key)
			require.Equal(t, r.Version, pending[i].Version)
		}
		if len(page) < 7 {
			break
		}
	}
	require.ElementsMatch(t, want, got)
	require.Equal(t, got, versions)
	require.True(t, slices.IsSortedFunc(got, func(a, b record.Key) int { return slices.Compare([]byte(a.String()), []byte(b.String())) }))
}
