package verify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/bluesky-social/indigo/atproto/repo"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car"
)

// blockMap has the blocks of a CAR by CID. The blocks are slices of the CAR.
type blockMap map[cid.Cid][]byte

// cidLen is the length of the one kind of CID that repositories use: version 1,
// DAG-CBOR or raw, SHA-256 (https://atproto.com/specs/repository, "CID Formats").
const cidLen = 36

// readCAR parses a version 1 CAR that is in memory whole, checks every block
// against its CID, and returns the blocks and the first root. A streaming reader
// would allocate what a section's length claims; here nothing is copied.
func readCAR(data []byte) (blockMap, cid.Cid, error) {
	reader := bytes.NewReader(data)
	if length, n := binary.Uvarint(data); n <= 0 || length > uint64(len(data)-n) {
		return nil, cid.Undef, refuse(Blocks, "CAR header: its length is malformed or exceeds the CAR")
	}
	buffered := bufio.NewReaderSize(reader, 16)
	header, err := car.ReadHeader(buffered)
	if err != nil {
		return nil, cid.Undef, refuse(Blocks, "CAR header: %w", err)
	}
	if header.Version != 1 || len(header.Roots) == 0 {
		return nil, cid.Undef, refuse(Blocks, "CAR header: version %d with %d roots", header.Version, len(header.Roots))
	}
	blocks := make(blockMap, 16)
	for rest := data[len(data)-reader.Len()-buffered.Buffered():]; len(rest) > 0; {
		if rest, err = blocks.take(rest); err != nil {
			return nil, cid.Undef, err
		}
	}
	return blocks, header.Roots[0], nil
}

// take reads one section (length, CID, block) and returns what follows it.
func (b blockMap) take(data []byte) ([]byte, error) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) || length < cidLen {
		return nil, refuse(Blocks, "CAR section: length %d, %d bytes are left", length, len(data)-max(n, 0))
	}
	section, rest := data[n:n+int(length)], data[n+int(length):]
	c, err := cid.Cast(section[:cidLen])
	if err != nil {
		return nil, refuse(Blocks, "CAR section: %w", err)
	}
	block := section[cidLen:]
	if sum := sha256.Sum256(block); section[2] != 0x12 || !bytes.Equal(sum[:], section[4:cidLen]) {
		return nil, refuse(Blocks, "block %s does not have the content that its CID names", c)
	}
	b[c] = block
	return rest, nil
}

// Get makes the blocks a source for the tree; it is for package mst.
func (b blockMap) Get(_ context.Context, c cid.Cid) (blockformat.Block, error) {
	block, ok := b[c]
	if !ok {
		return nil, &ipld.ErrNotFound{Cid: c}
	}
	return blockformat.NewBlockWithCid(block, c)
}

// commit decodes the signed commit.
func (b blockMap) commit(root cid.Cid) (*repo.Commit, error) {
	block, ok := b[root]
	if !ok {
		return nil, refuse(Blocks, "the commit's block %s is missing", root)
	}
	var commit repo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(block)); err != nil {
		return nil, refuse(Blocks, "decoding the signed commit: %w", err)
	}
	if err := commit.VerifyStructure(); err != nil {
		return nil, refuse(Malformed, "signed commit: %w", err)
	}
	return &commit, nil
}
