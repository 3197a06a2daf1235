package resync

import (
	"bytes"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// maxPathKeys bounds what the keys of the nodes on the way from the root to one
// record come to: nodes abbreviate keys, and a node may have a megabyte of those.
const maxPathKeys = 8 << 20

// walk goes through a tree in the order of its keys, past subtrees that have nothing
// in scope. Of the tree it holds the nodes between the root and where it is.
//
// Only what can be a node is taken: keys in order and between those of the nodes
// above, each at the height that its hash gives. Heights fall from node to node and
// no subtree is without a key, so a walk ends, whatever the blocks say, and no node
// is read twice.
type walk struct {
	blocks blocks
	scope  scope
	path   []step
	left   int // bytes of keys that may yet be on the path
}

// blocks are those of one repository; get returns a [Refusal] for what is not there
// or not what it should be.
type blocks interface {
	get(cid.Cid) ([]byte, error)
}

// step is a node on the path.
type step struct {
	entries       []mst.NodeEntry
	next          int // entry
	height        int
	after, before []byte // the bounds of its keys; nil for none
	keys          int    // bytes
}

// newWalk begins at a tree's root.
func newWalk(blocks blocks, root cid.Cid, scope scope) (*walk, error) {
	w := &walk{blocks: blocks, scope: scope, left: maxPathKeys}
	return w, w.descend(root, -1, nil, nil)
}

// next returns the next key in scope and its value. A key without bytes is the end.
func (w *walk) next() (key []byte, value cid.Cid, err error) {
	for len(w.path) > 0 {
		at := &w.path[len(w.path)-1]
		if at.next == len(at.entries) {
			w.left += at.keys
			w.path = w.path[:len(w.path)-1]
			continue
		}
		e := &at.entries[at.next]
		at.next++
		if e.IsValue() {
			if w.scope.contains(string(e.Key)) {
				return e.Key, *e.Value, nil
			}
			continue
		}
		after, before := at.around(at.next - 1)
		if !w.scope.meets(after, before) {
			continue
		}
		if err := w.descend(*e.ChildCID, at.height-1, after, before); err != nil {
			return nil, cid.Undef, err
		}
	}
	return nil, cid.Undef, nil
}

// around are the bounds of an entry's subtree.
func (s *step) around(i int) (after, before []byte) {
	after, before = s.after, s.before
	if i > 0 {
		after = s.entries[i-1].Key
	}
	if i+1 < len(s.entries) {
		before = s.entries[i+1].Key
	}
	return after, before
}

// descend reads the node at a height (-1: the root's, whatever it is).
func (w *walk) descend(c cid.Cid, height int, after, before []byte) error {
	block, err := w.blocks.get(c)
	if err != nil {
		return err
	}
	entries, err := verify.Node(block, w.left)
	if err != nil {
		return refuse(Tree, "node %s: %w", c, err)
	}
	s := step{entries: entries, height: height, after: after, before: before}
	if s.height < 0 {
		s.height = rootHeight(entries)
	}
	if err := s.check(c, height < 0); err != nil {
		return err
	}
	w.left -= s.keys
	w.path = append(w.path, s)
	return nil
}

// rootHeight is that of the root's keys; a tree is no higher than its keys make it.
func rootHeight(entries []mst.NodeEntry) int {
	for i := range entries {
		if entries[i].IsValue() {
			return mst.HeightForKey(entries[i].Key)
		}
	}
	return 0
}

// check holds a node to where it stands, and counts its keys.
func (s *step) check(c cid.Cid, root bool) error {
	last := s.after
	for i := range s.entries {
		e := &s.entries[i]
		if !e.IsValue() {
			if s.height == 0 {
				return refuse(Tree, "node %s: a subtree below the lowest layer", c)
			}
			continue
		}
		s.keys += len(e.Key)
		switch {
		case mst.HeightForKey(e.Key) != s.height:
			return refuse(Tree, "node %s: the key %.80q stands in the layer %d, and belongs in %d", c, e.Key, s.height, mst.HeightForKey(e.Key))
		case last != nil && bytes.Compare(last, e.Key) >= 0, s.before != nil && bytes.Compare(e.Key, s.before) >= 0:
			return refuse(Tree, "node %s: the key %.80q is out of order", c, e.Key)
		}
		last = e.Key
	}
	if s.keys == 0 && (len(s.entries) > 0) == root {
		return refuse(Tree, "node %s has no keys", c)
	}
	return nil
}
