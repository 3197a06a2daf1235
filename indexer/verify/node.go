package verify

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// maxKeyBytes bounds what the keys of a commit's tree nodes come to once they are
// written out. Nodes abbreviate each key by what it shares with the one before, so
// that two megabytes of blocks could ask for gigabytes.
const maxKeyBytes = 8 << 20

// errTree says that the blocks are no tree; other failures are the blocks' own.
var errTree = errors.New("no valid tree")

// treeReader builds the part of a tree whose nodes are among the blocks. It takes
// only what can be nodes of a tree: keys in order, each at the height that its hash
// gives, abbreviated as far as they can be. So every node is read at most once, and
// recursion ends with the heights; a node that refers to one other a hundred times,
// and so on downwards, would otherwise cost more than can be paid.
type treeReader struct {
	blocks blockMap
	left   int // bytes of keys that may yet come
}

// readTree builds the tree under root. Subtrees whose nodes are missing stay so.
func readTree(blocks blockMap, root cid.Cid) (*mst.Tree, error) {
	block, ok := blocks[root]
	if !ok {
		return nil, refuse(Blocks, "the tree's root %s is missing", root)
	}
	r := treeReader{blocks: blocks, left: maxKeyBytes}
	node, err := r.node(root, block, -1, nil, nil)
	if errors.Is(err, errKeyBytes) {
		return nil, refuse(Limit, "reading the tree: %w", err)
	}
	if err != nil {
		return nil, refuse(Tree, "reading the tree: %w", err)
	}
	return &mst.Tree{Root: node}, nil
}

var errKeyBytes = fmt.Errorf("its keys come to more than %d bytes", maxKeyBytes)

// node reads the node at a height (-1: the root's, whatever it is) whose keys must
// lie between after and before; nil is no bound.
func (r *treeReader) node(c cid.Cid, block []byte, height int, after, before []byte) (*mst.Node, error) {
	entries, err := r.entries(block)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", c, err)
	}
	if height < 0 {
		if height, err = rootHeight(entries); err != nil {
			return nil, fmt.Errorf("root %s: %w", c, err)
		}
	} else if len(entries) == 0 {
		return nil, fmt.Errorf("node %s is empty: %w", c, errTree)
	}
	for i := range entries {
		e := &entries[i]
		if e.ChildCID == nil {
			if mst.HeightForKey(e.Key) != height || !between(e.Key, after, before) {
				return nil, fmt.Errorf("node %s: the key %.80q stands in a wrong place: %w", c, e.Key, errTree)
			}
			after = e.Key
			continue
		}
		if height == 0 {
			return nil, fmt.Errorf("node %s: a subtree at height 0: %w", c, errTree)
		}
		child, ok := r.blocks[*e.ChildCID]
		if !ok {
			continue
		}
		upper := before
		if i+1 < len(entries) {
			upper = entries[i+1].Key
		}
		if e.Child, err = r.node(*e.ChildCID, child, height-1, after, upper); err != nil {
			return nil, err
		}
	}
	return &mst.Node{Entries: entries, Height: height, CID: &c}, nil
}

// rootHeight is that of the root's keys. A root without any is that of the empty
// tree: a tree is no higher than its keys make it.
func rootHeight(entries []mst.NodeEntry) (int, error) {
	for _, e := range entries {
		if e.ChildCID == nil {
			return mst.HeightForKey(e.Key), nil
		}
	}
	if len(entries) > 0 {
		return 0, fmt.Errorf("it has a subtree and no keys: %w", errTree)
	}
	return 0, nil
}

func between(key, after, before []byte) bool {
	return (after == nil || bytes.Compare(after, key) < 0) && (before == nil || bytes.Compare(key, before) < 0)
}

// entries decodes a node: {e: [{k: suffix, p: prefix, t: right subtree, v: value}], l: left subtree}
// (https://atproto.com/specs/repository, "MST Structure").
func (r *treeReader) entries(block []byte) ([]mst.NodeEntry, error) {
	b := cborReader{data: block}
	if n, err := b.expect(cborMap); err != nil || n != 2 {
		return nil, fmt.Errorf("not a node of two properties: %w", errors.Join(err, errTree))
	}
	if err := b.name("e"); err != nil {
		return nil, err
	}
	n, err := b.expect(cborArray)
	if err != nil {
		return nil, err
	}
	if n > uint64(len(block))/cidLen {
		return nil, errTruncated
	}
	entries := make([]mst.NodeEntry, 1, 1+2*n) // the first is for the left subtree
	var last []byte
	for range n {
		if entries, err = r.entry(&b, entries, last); err != nil {
			return nil, err
		}
		last = lastKey(entries)
	}
	if err := b.name("l"); err != nil {
		return nil, err
	}
	if entries[0].ChildCID, err = b.nullableLink(); err != nil {
		return nil, err
	}
	if entries[0].ChildCID == nil {
		entries = entries[1:]
	}
	return entries, b.end()
}

func lastKey(entries []mst.NodeEntry) []byte {
	if e := entries[len(entries)-1]; e.ChildCID == nil {
		return e.Key
	}
	return entries[len(entries)-2].Key
}

// entry appends a key with its value, and the subtree to the right of it.
func (r *treeReader) entry(b *cborReader, entries []mst.NodeEntry, last []byte) ([]mst.NodeEntry, error) {
	if n, err := b.expect(cborMap); err != nil || n != 4 {
		return nil, fmt.Errorf("not an entry of four properties: %w", errors.Join(err, errTree))
	}
	key, err := r.key(b, last)
	if err != nil {
		return nil, err
	}
	if err := b.name("t"); err != nil {
		return nil, err
	}
	right, err := b.nullableLink()
	if err != nil {
		return nil, err
	}
	if err := b.name("v"); err != nil {
		return nil, err
	}
	value, err := b.link()
	if err != nil {
		return nil, err
	}
	entries = append(entries, mst.NodeEntry{Key: key, Value: &value})
	if right != nil {
		entries = append(entries, mst.NodeEntry{ChildCID: right})
	}
	return entries, nil
}

// key writes out an abbreviated key.
func (r *treeReader) key(b *cborReader, last []byte) ([]byte, error) {
	if err := b.name("k"); err != nil {
		return nil, err
	}
	suffix, err := b.bytes()
	if err != nil {
		return nil, err
	}
	if err := b.name("p"); err != nil {
		return nil, err
	}
	prefix, err := b.expect(cborUint)
	if err != nil {
		return nil, err
	}
	if prefix > uint64(len(last)) {
		return nil, b.fail("a key shares %d bytes with one of %d", prefix, len(last))
	}
	size := int(prefix) + len(suffix)
	if size == 0 || size > mst.MAX_KEY_BYTES {
		return nil, b.fail("a key of %d bytes", size)
	}
	if r.left -= size; r.left < 0 {
		return nil, errKeyBytes
	}
	if int(prefix) < len(last) && len(suffix) > 0 && suffix[0] == last[prefix] {
		return nil, b.fail("a key is abbreviated less than it can be")
	}
	return append(append(make([]byte, 0, size), last[:prefix]...), suffix...), nil
}
