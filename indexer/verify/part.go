package verify

import (
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// The parts of a repository, for who reads one that did not come with the stream.
// All of them accept the one canonical form alone.

// Root takes the header of a version 1 CAR apart, without its length, and returns
// the first root.
func Root(header []byte) (cid.Cid, error) { return readHeader(header) }

// CID parses the one kind of CID that repositories use, which has [CIDLen] bytes:
// version 1, DAG-CBOR or raw, SHA-256.
func CID(raw []byte) (cid.Cid, error) { return parseCID(raw) }

// CIDLen is the length of a CID in bytes. The last 32 are the SHA-256.
const CIDLen = cidLen

// Node takes a node of a tree apart. Its keys come written out, at most keyBytes of
// them; whether they stand where they belong is not checked. Entries are keys with
// their values, and the subtrees between them.
func Node(block []byte, keyBytes int) ([]mst.NodeEntry, error) {
	return (&treeReader{left: keyBytes}).entries(block)
}
