package resync

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

var viewAll = simulate.View{Inactive: true, Barred: true}

// heap has blocks under whatever CID they were given.
type heap map[cid.Cid][]byte

func (h heap) get(c cid.Cid) ([]byte, error) {
	block, ok := h[c]
	if !ok {
		return nil, refuse(Missing, "block %s did not come", c)
	}
	return block, nil
}

// link is a CID that is told apart by a number.
func link(n int) cid.Cid { return cidOf(fmt.Appendf(nil, "value %d", n)) }

// keysAt lists keys of one collection that belong into a layer, in order.
func keysAt(height, n int) []string {
	var keys []string
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprintf("%s/k%07d", corpora, i); mst.HeightForKey([]byte(key)) == height {
			keys = append(keys, key)
		}
	}
	return keys
}

// nodeOf encodes a node as its parts say, whether that is right or not.
func nodeOf(t testing.TB, left *cid.Cid, entries ...mst.EntryData) []byte {
	t.Helper()
	node := mst.NodeData{Left: left, Entries: entries}
	if entries == nil {
		node.Entries = []mst.EntryData{}
	}
	block, _, err := node.Bytes()
	require.NoError(t, err)
	return block
}

// plain are entries for keys, abbreviated as they should be.
func plain(keys ...string) []mst.EntryData {
	var list []mst.EntryData
	last := ""
	for i, key := range keys {
		shared := mst.CountPrefixLen([]byte(last), []byte(key))
		list = append(list, mst.EntryData{PrefixLen: int64(shared), KeySuffix: []byte(key[shared:]), Value: link(i)})
		last = key
	}
	return list
}

func TestBrokenTreesAreRefused(t *testing.T) {
	t.Parallel()
	low, high := keysAt(0, 40), keysAt(1, 4)
	root, child, other := link(-1), link(-2), link(-3)
	between := func(a, b string) []string {
		return slices.DeleteFunc(slices.Clone(low), func(k string) bool { return k <= a || b != "" && k >= b })
	}
	right := func(list []mst.EntryData, at int, c cid.Cid) []mst.EntryData {
		list[at].Right = &c
		return list
	}
	inside := between(high[0], high[1])
	require.NotEmpty(t, inside)
	cases := map[string]heap{
		"keys out of order":            {root: nodeOf(t, nil, plain(low[1], low[0])...)},
		"a key twice":                  {root: nodeOf(t, nil, plain(low[0], low[0])...)},
		"a key in too high a layer":    {root: nodeOf(t, nil, plain(append([]string{high[0]}, inside[0])...)...)},
		"a key of a lower layer first": {root: nodeOf(t, nil, plain(low[0], high[3])...)},
		"a subtree at the bottom":      {root: nodeOf(t, &child, plain(low[1])...), child: nodeOf(t, nil, plain(low[0])...)},
		"a subtree that is empty":      {root: nodeOf(t, nil, right(plain(high[0]), 0, child)...), child: nodeOf(t, nil)},
		"a subtree of smaller keys":    {root: nodeOf(t, nil, right(plain(high[3]), 0, child)...), child: nodeOf(t, nil, plain(low[0])...)},
		"a subtree of larger keys":     {root: nodeOf(t, nil, right(plain(high[0], high[1]), 0, child)...), child: nodeOf(t, nil, plain(between(high[1], "")[0])...)},
		"one subtree twice":            {root: nodeOf(t, nil, right(right(plain(high[0], high[1]), 0, child), 1, child)...), child: nodeOf(t, nil, plain(inside...)...)},
		"a node below itself":          {root: nodeOf(t, nil, right(plain(high[0]), 0, root)...)},
		"two nodes below each other":   {root: nodeOf(t, nil, right(plain(keysAt(2, 1)[0]), 0, child)...), child: nodeOf(t, nil, right(plain(between2(high, keysAt(2, 1)[0])), 0, root)...)},
		"a root without keys":          {root: nodeOf(t, &child), child: nodeOf(t, nil, plain(low[0])...)},
		"a chain deeper than its keys": {root: nodeOf(t, nil, right(plain(high[0]), 0, child)...), child: nodeOf(t, &other), other: nodeOf(t, nil, plain(inside[0])...)},
		"a prefix longer than its key": {root: nodeOf(t, nil, append(plain(low[0]), mst.EntryData{PrefixLen: 900, KeySuffix: []byte("x"), Value: link(1)})...)},
		"a first key with a prefix":    {root: nodeOf(t, nil, mst.EntryData{PrefixLen: 1, KeySuffix: []byte(low[0]), Value: link(1)})},
		"keys not abbreviated":         {root: nodeOf(t, nil, plain(low[0])[0], mst.EntryData{KeySuffix: []byte(low[1]), Value: link(1)})},
		"a key without bytes":          {root: nodeOf(t, nil, mst.EntryData{KeySuffix: []byte{}, Value: link(1)})},
		"a key too long":               {root: nodeOf(t, nil, plain(string(corpora)+"/"+strings.Repeat("x", 2000))...)},
		"no node at all":               {root: []byte("\xa1\x61x\x01")},
		"bytes after the node":         {root: append(nodeOf(t, nil, plain(low[0])...), 0)},
		"an empty block":               {root: {}},
	}
	for name, blocks := range cases {
		for i := range 40 {
			blocks[link(i)] = []byte("a record")
		}
		_, err := walkAll(blocks, root, layersAlone)
		require.Error(t, err, name)
		refusal, ok := IsRefusal(err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, Tree, refusal.Reason, "%s: %v", name, err)
	}
}

// between2 is one of the keys that come after another.
func between2(keys []string, after string) string {
	for _, k := range keys {
		if k > after {
			return k
		}
	}
	return keys[len(keys)-1]
}

func TestKeysOnThePathHaveABound(t *testing.T) {
	t.Parallel()
	top := keysAt(2, 1)[0]
	high := slices.DeleteFunc(keysAt(1, 40), func(k string) bool { return k < top })
	entries := []entry{{top, link(0)}}
	size := len(top)
	for i, key := range high {
		entries = append(entries, entry{key, link(i)})
		size += len(key)
	}
	root, nodes := treeOf(t, entries)
	blocks := heap{}
	for _, n := range nodes {
		blocks[n.cid] = n.block
	}
	walk := func(room int) (*walk, error) {
		w := &walk{blocks: blocks, scope: layersAlone, left: room}
		err := w.descend(root, -1, nil, nil)
		for key := []byte("-"); err == nil && key != nil; {
			key, _, err = w.next()
		}
		return w, err
	}
	w, err := walk(size)
	require.NoError(t, err)
	require.Equal(t, size, w.left, "what was left behind is given back")
	_, err = walk(size - 1)
	requireReason(t, Tree, err)
}

func TestAnEmptyTreeHasNothing(t *testing.T) {
	t.Parallel()
	root, nodes := treeOf(t, nil)
	all, err := walkAll(heap{root: nodes[0].block}, root, layersAlone)
	require.NoError(t, err)
	require.Empty(t, all)
}

// TestWalksAreWhatTheTreeHolds builds random trees with indigo and walks them within
// random scopes.
func TestWalksAreWhatTheTreeHolds(t *testing.T) {
	t.Parallel()
	names := []string{"a.b.c", "a.b.c.d", "a.b.cc", "a.b-x.c", "app.bsky.feed", "app.bsky.x", "appx.bsky.y", "pub.layers.corpus.corpus", "zz.top.one"}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		blocks := heap{}
		var entries []entry
		seen := map[string]bool{}
		for i := range rng.IntN(400) {
			key := fmt.Sprintf("%s/%c%d", names[rng.IntN(len(names))], "-.a~0"[rng.IntN(5)], rng.IntN(1000))
			if seen[key] {
				continue
			}
			seen[key] = true
			entries = append(entries, entry{key, link(i)})
			blocks[link(i)] = []byte("a record")
		}
		root, nodes := treeOf(t, entries)
		for _, n := range nodes {
			blocks[n.cid] = n.block
		}
		var follow []string
		for _, name := range append(slices.Clone(names), "app.bsky.*", "a.*", "a.b.*") {
			if rng.IntN(3) == 0 {
				follow = append(follow, name)
			}
		}
		var want []entry
		for _, e := range entries {
			collection, _, _ := strings.Cut(e.key, "/")
			if followed(follow, collection) {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		got, err := walkAll(blocks, root, newScope(follow))
		require.NoError(t, err)
		require.Equal(t, want, got, "seed %d, follow %q", seed, follow)
	}
}

// followed says in plain words what a scope says in ranges.
func followed(follow []string, collection string) bool {
	for _, f := range follow {
		if f == collection || strings.HasSuffix(f, "*") && strings.HasPrefix(collection, f[:len(f)-1]) {
			return true
		}
	}
	return false
}

func TestCollectionsComeInTheOrderOfTheirKeys(t *testing.T) {
	t.Parallel()
	s := newScope([]string{"a.b.c", "a.b.c.d", "a.b.c-d"})
	got := s.collections([]syntax.NSID{"a.b.c", "a.b.c-d", "a.b.c.d", "x.y.z"})
	require.Equal(t, []syntax.NSID{"a.b.c-d", "a.b.c.d", "a.b.c"}, got)
	require.False(t, bytes.Contains([]byte(fmt.Sprint(got)), []byte("x.y.z")))
}
