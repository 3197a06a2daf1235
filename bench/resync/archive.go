package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/internal/fixture"
)

const collection syntax.NSID = "pub.layers.expression.expression"

var addresses = cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256)

// archive writes the CAR of a repository of expressions. The tree is built from its
// leaves up, since all keys are known: so no node is written twice, and none is kept.
type archive struct {
	out *bufio.Writer
	state
	value map[string]any // of each record, but for its text
}

// state is one of two that the repository is in: as it was written, and later, when
// a tenth of the records are deleted and another tenth changed.
type state struct {
	records int
	edited  bool
}

func (s state) rev() syntax.TID {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if s.edited {
		at = at.AddDate(0, 1, 0)
	}
	return syntax.NewTID(at.UnixMicro(), 0)
}

// present is how many records there are.
func (s state) present() int {
	if s.edited {
		return s.records - (s.records+9)/10
	}
	return s.records
}

func (s state) deleted(i int) bool { return s.edited && i%10 == 0 }
func (s state) changed(i int) bool { return s.edited && i%10 == 5 }

// leaf is a record in the tree.
type leaf struct {
	key    []byte
	value  cid.Cid
	height int
}

func (s state) write(file *os.File, did syntax.DID, key atcrypto.PrivateKey) error {
	a := &archive{out: bufio.NewWriterSize(file, 1<<20), state: s, value: fixture.Minimal(collection)}
	header := carHeader(cid.Undef)
	if _, err := a.out.Write(header); err != nil { // the commit's address has a fixed length, and is filled in below
		return err
	}
	root, err := a.tree()
	if err != nil {
		return fmt.Errorf("build the tree: %w", err)
	}
	commit := repo.Commit{DID: string(did), Version: 3, Data: root, Rev: string(s.rev())}
	if err := commit.Sign(key); err != nil {
		return fmt.Errorf("sign the commit: %w", err)
	}
	var block bytes.Buffer
	if err := commit.MarshalCBOR(&block); err != nil {
		return fmt.Errorf("encode the commit: %w", err)
	}
	head, err := a.block(block.Bytes())
	if err != nil {
		return err
	}
	if err := a.out.Flush(); err != nil {
		return err
	}
	_, err = file.WriteAt(carHeader(head), 0)
	return err
}

// carHeader is the first section of a CAR; without a root, one as long.
func carHeader(root cid.Cid) []byte {
	if !root.Defined() {
		root, _ = addresses.Sum(nil) // cannot fail: of nothing
	}
	var section bytes.Buffer
	encoded, err := atdata.MarshalCBOR(map[string]any{"version": int64(1), "roots": []any{atdata.CIDLink(root)}})
	if err != nil {
		panic(err) // of a constant shape
	}
	section.Write(binary.AppendUvarint(nil, uint64(len(encoded))))
	section.Write(encoded)
	return section.Bytes()
}

// block writes a section and returns its address.
func (a *archive) block(content []byte) (cid.Cid, error) {
	address, err := addresses.Sum(content)
	if err != nil {
		return cid.Undef, err
	}
	name := address.Bytes()
	for _, part := range [][]byte{binary.AppendUvarint(nil, uint64(len(name)+len(content))), name, content} {
		if _, err := a.out.Write(part); err != nil {
			return cid.Undef, err
		}
	}
	return address, nil
}

// next writes the record of a number and returns its place in the tree.
func (a *archive) next(i int) (leaf, error) {
	a.value["text"] = fmt.Sprintf("Sentence %d of a corpus that was written long before anybody indexed it.", i)
	if a.changed(i) {
		a.value["text"] = fmt.Sprintf("Sentence %d, as it was put right later.", i)
	}
	content, err := atdata.MarshalCBOR(a.value)
	if err != nil {
		return leaf{}, fmt.Errorf("encode record %d: %w", i, err)
	}
	address, err := a.block(content)
	key := fmt.Appendf(nil, "%s/r%09d", collection, i)
	return leaf{key: key, value: address, height: mst.HeightForKey(key)}, err
}

// tree writes records and nodes. The open node of each height takes leaves of that
// height; a higher leaf closes all that are below it.
func (a *archive) tree() (cid.Cid, error) {
	var open []*mst.NodeData // by height
	var last [][]byte        // key of each node's latest entry
	// seal closes the nodes below a height and hangs them into the next one above.
	seal := func(height int) error {
		for h := range height {
			if open[h] == nil {
				continue
			}
			link, err := a.node(open[h])
			if err != nil {
				return err
			}
			open[h], last[h] = nil, nil
			if open[h+1] == nil {
				open[h+1] = &mst.NodeData{Left: &link, Entries: []mst.EntryData{}}
			} else {
				open[h+1].Entries[len(open[h+1].Entries)-1].Right = &link
			}
		}
		return nil
	}
	for i := range a.records {
		if a.deleted(i) {
			continue
		}
		l, err := a.next(i)
		if err != nil {
			return cid.Undef, err
		}
		for len(open) <= l.height {
			open, last = append(open, nil), append(last, nil)
		}
		if err := seal(l.height); err != nil {
			return cid.Undef, err
		}
		if open[l.height] == nil {
			open[l.height] = &mst.NodeData{Entries: []mst.EntryData{}}
		}
		shared := mst.CountPrefixLen(last[l.height], l.key)
		open[l.height].Entries = append(open[l.height].Entries, mst.EntryData{
			PrefixLen: int64(shared), KeySuffix: l.key[shared:], Value: l.value,
		})
		last[l.height] = l.key
	}
	if len(open) == 0 {
		return a.node(&mst.NodeData{Entries: []mst.EntryData{}})
	}
	if err := seal(len(open) - 1); err != nil {
		return cid.Undef, err
	}
	return a.node(open[len(open)-1])
}

func (a *archive) node(n *mst.NodeData) (cid.Cid, error) {
	content, _, err := n.Bytes()
	if err != nil {
		return cid.Undef, fmt.Errorf("encode a node: %w", err)
	}
	return a.block(content)
}
