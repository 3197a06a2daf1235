package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/ipfs/go-cid"
)

// Bounds of an event's CAR besides [MaxBlocks]. The largest commits of the protocol
// have about 6,000 blocks: 200 ops, each with the nodes on the way to its record
// and their neighbours.
const (
	MaxHeader   = 1024
	MaxSections = 20_000
)

// blockMap has the blocks of a CAR by CID. The blocks are slices of the CAR.
type blockMap map[cid.Cid][]byte

// readCAR parses a version 1 CAR that is in memory whole, checks every block
// against its CID, and returns the blocks and the first root. A streaming reader
// would allocate what a section's length claims; here nothing is copied.
func readCAR(data []byte) (blockMap, cid.Cid, error) {
	header, rest, err := section(data)
	if err != nil {
		return nil, cid.Undef, refuse(Blocks, "CAR header: %w", err)
	}
	if len(header) > MaxHeader {
		return nil, cid.Undef, refuse(Limit, "CAR header of %d bytes, %d are allowed", len(header), MaxHeader)
	}
	root, err := readHeader(header)
	if err != nil {
		return nil, cid.Undef, refuse(Blocks, "CAR header: %w", err)
	}
	blocks := make(blockMap, 16)
	for n := 0; len(rest) > 0; n++ {
		if n == MaxSections {
			return nil, cid.Undef, refuse(Limit, "more than %d blocks", MaxSections)
		}
		if rest, err = blocks.take(rest); err != nil {
			return nil, cid.Undef, err
		}
	}
	return blocks, root, nil
}

// section splits off what the length at the beginning says.
func section(data []byte) (content, rest []byte, err error) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) {
		return nil, nil, errTruncated
	}
	end := n + int(length)
	return data[n:end:end], data[end:], nil
}

// readHeader is the first root of a header {roots, version}
// (https://ipld.io/specs/transport/car/carv1/#header).
func readHeader(data []byte) (root cid.Cid, err error) {
	r := cborReader{data: data}
	n, err := r.expect(cborMap)
	if err != nil {
		return cid.Undef, err
	}
	version := uint64(0)
	err = r.entries(n, func(key string) (err error) {
		switch key {
		case "roots":
			root, err = r.firstOf()
		case "version":
			version, err = r.expect(cborUint)
		default:
			err = r.skip(1)
		}
		return err
	})
	switch {
	case err != nil:
		return cid.Undef, err
	case version != 1 || !root.Defined():
		return cid.Undef, r.fail("version %d, or no root", version)
	}
	return root, r.end()
}

// firstOf is the first of a list of links.
func (r *cborReader) firstOf() (first cid.Cid, err error) {
	n, err := r.expect(cborArray)
	if err != nil {
		return cid.Undef, err
	}
	for i := range n {
		c, err := r.link()
		if err != nil {
			return cid.Undef, err
		}
		if i == 0 {
			first = c
		}
	}
	return first, nil
}

// take reads one section (length, CID, block) and returns what follows it.
func (b blockMap) take(data []byte) ([]byte, error) {
	content, rest, err := section(data)
	if err != nil || len(content) < cidLen {
		return nil, refuse(Blocks, "CAR section of %d bytes, %d are left", len(content), len(data))
	}
	c, err := parseCID(content[:cidLen])
	if err != nil {
		return nil, refuse(Blocks, "CAR section: %w", err)
	}
	block := content[cidLen:]
	if sum := sha256.Sum256(block); !bytes.Equal(sum[:], content[4:cidLen]) {
		return nil, refuse(Blocks, "block %s does not have the content that its CID names", c)
	}
	b[c] = block
	return rest, nil
}
