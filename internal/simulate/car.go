package simulate

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	blockstore "github.com/ipfs/go-ipfs-blockstore"
	"github.com/ipld/go-car"
	carutil "github.com/ipld/go-car/util"
	"github.com/multiformats/go-multihash"
)

// block is a piece of a repository under its content address.
type block struct {
	cid  cid.Cid
	data []byte
}

// cborCID is the address of a DAG-CBOR block.
func cborCID(data []byte) (cid.Cid, error) {
	return cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
}

func encodeCAR(root cid.Cid, content []block) ([]byte, error) {
	var buf bytes.Buffer
	if err := writeCARHeader(&buf, root); err != nil {
		return nil, err
	}
	seen := make(map[cid.Cid]bool, len(content))
	for _, b := range content {
		if seen[b.cid] {
			continue
		}
		seen[b.cid] = true
		if err := writeCARBlock(&buf, b); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

func writeCARHeader(out io.Writer, root cid.Cid) error {
	if err := car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{root}, Version: 1}, out); err != nil {
		return fmt.Errorf("write CAR header: %w", err)
	}
	return nil
}

func writeCARBlock(out io.Writer, b block) error {
	if err := carutil.LdWrite(out, b.cid.Bytes(), b.data); err != nil {
		return fmt.Errorf("write CAR block %s: %w", b.cid, err)
	}
	return nil
}

// diffBlocks collects what mst.Tree.WriteDiffBlocks writes, children first. The
// rest of the blockstore interface is never called there.
type diffBlocks struct {
	blockstore.Blockstore
	written []block
}

func (d *diffBlocks) Put(_ context.Context, b blocks.Block) error {
	d.written = append(d.written, block{b.Cid(), b.RawData()})
	return nil
}

// diff encodes the nodes that changed since the last call, parents first, along
// with the unchanged neighbours that are needed to undo the changes. The root is
// always among them.
func diff(ctx context.Context, tree *mst.Tree) (cid.Cid, []block, error) {
	var store diffBlocks
	root, err := tree.WriteDiffBlocks(ctx, &store)
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("encode changed tree nodes: %w", err)
	}
	if len(store.written) == 0 {
		b, err := encodeNode(tree.Root)
		return *root, []block{b}, err
	}
	for i, j := 0, len(store.written)-1; i < j; i, j = i+1, j-1 {
		store.written[i], store.written[j] = store.written[j], store.written[i]
	}
	return *root, store.written, nil
}

func encodeNode(n *mst.Node) (block, error) {
	data := n.NodeData()
	raw, c, err := data.Bytes()
	if err != nil {
		return block{}, fmt.Errorf("encode tree node: %w", err)
	}
	return block{*c, raw}, nil
}

// walkNodes visits a tree's nodes, parents first, and the entries between them.
func walkNodes(n *mst.Node, node func(*mst.Node) error, value func(cid.Cid) error) error {
	if err := node(n); err != nil {
		return err
	}
	for _, e := range n.Entries {
		var err error
		if e.IsValue() {
			err = value(*e.Value)
		} else if e.Child != nil {
			err = walkNodes(e.Child, node, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pathNodes returns the nodes between the root and where key is or would be.
func pathNodes(n *mst.Node, key []byte) []*mst.Node {
	path := []*mst.Node{n}
	for {
		var next *mst.Node
		for _, e := range n.Entries {
			if e.IsValue() {
				order := bytes.Compare(key, e.Key)
				if order == 0 {
					return path
				}
				if order < 0 {
					break
				}
				next = nil
				continue
			}
			next = e.Child
		}
		if next == nil {
			return path
		}
		path = append(path, next)
		n = next
	}
}

// ascend visits the keys of a tree from the given one on, in order, until visit
// returns false.
func ascend(n *mst.Node, from []byte, visit func(key []byte, value cid.Cid) bool) bool {
	for i, e := range n.Entries {
		switch {
		case e.IsValue():
			if bytes.Compare(e.Key, from) >= 0 && !visit(e.Key, *e.Value) {
				return false
			}
		case i+1 < len(n.Entries) && bytes.Compare(n.Entries[i+1].Key, from) <= 0:
			// everything below this entry comes before from
		case e.Child != nil:
			if !ascend(e.Child, from, visit) {
				return false
			}
		}
	}
	return true
}
