package resync

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// FuzzSpool reads any bytes as a repository, and walks whatever block its root names
// as a tree. Whatever they are, the end is a refusal or a walk in order.
func FuzzSpool(f *testing.F) {
	world, server := network(f)
	did := mixed(f, world, "seed", 12)
	car := download(f, server.URL(), did)
	root, sections := decode(f, car)
	f.Add(car)
	f.Add(car[:len(car)-7])
	for _, s := range sections[1:] {
		f.Add(encode(s.cid, sections...))
		f.Add(encode(s.cid, s))
	}
	f.Add(encode(root))
	f.Add([]byte{0})
	spools := newSpooler(f.TempDir(), Limits{Bytes: 1 << 20, Blocks: 1000})
	f.Fuzz(func(t *testing.T, car []byte) {
		sp, err := spools.read(t.Context(), bytes.NewReader(car))
		if err != nil {
			mustRefuse(t, err)
			return
		}
		defer sp.close()
		if sp.size != int64(len(car)) {
			t.Fatalf("%d of %d bytes were read", sp.size, len(car))
		}
		inOrder(t, sp, sp.root)
	})
}

// FuzzNode walks a tree whose root is any bytes, and whose other nodes are those of
// a real one.
func FuzzNode(f *testing.F) {
	var entries []entry
	for i, key := range append(keysAt(0, 30), append(keysAt(1, 8), keysAt(2, 3)...)...) {
		entries = append(entries, entry{key, link(i)})
	}
	_, nodes := treeOf(f, entries)
	blocks := heap{}
	for _, n := range nodes {
		blocks[n.cid] = n.block
		f.Add(n.block)
	}
	f.Fuzz(func(t *testing.T, node []byte) {
		own := heap{link(-1): node}
		for c, block := range blocks {
			own[c] = block
		}
		inOrder(t, own, link(-1))
		if entries, err := verify.Node(node, maxPathKeys); err == nil && len(entries) > 2*len(node) {
			t.Fatalf("%d entries of %d bytes", len(entries), len(node))
		}
	})
}

func inOrder(t *testing.T, blocks blocks, root cid.Cid) {
	t.Helper()
	w, err := newWalk(blocks, root, layersAlone)
	last := []byte(nil)
	for err == nil {
		var key []byte
		if key, _, err = w.next(); err == nil {
			if key == nil {
				return
			}
			if bytes.Compare(last, key) >= 0 {
				t.Fatalf("%q comes after %q", key, last)
			}
			last = key
		}
	}
	mustRefuse(t, err)
}

func mustRefuse(t *testing.T, err error) {
	t.Helper()
	if _, ok := IsRefusal(err); !ok {
		t.Fatalf("%v is no refusal", err)
	}
}
