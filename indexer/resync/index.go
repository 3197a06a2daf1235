package resync

import (
	"bytes"
	"slices"
	"sort"

	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// index says where in the spool each block is. A repository may have millions, so
// an entry has 20 bytes and no pointer: the first byte of a block's digest chooses a
// bucket, and an entry of it is the next 12 bytes of the digest, 5 of the offset, 3
// of the length. Two blocks whose digests share 13 bytes can be made at a cost, by
// whoever writes the repository; the second is then not found under its own hash,
// and the repository refused.
type index struct {
	buckets [256][]indexEntry
	blocks  int
}

type indexEntry [keyLen + 5 + 3]byte

const (
	keyLen    = 12
	maxOffset = 1<<40 - 1
	maxLength = 1<<24 - 1
)

// digest is the hash that a CID ends with.
func digest(c cid.Cid) string { return c.KeyString()[verify.CIDLen-32:] }

func (x *index) add(digest []byte, offset int64, length int) {
	var e indexEntry
	copy(e[:keyLen], digest[1:])
	for i := range 5 {
		e[keyLen+i] = byte(offset >> (8 * (4 - i)))
	}
	for i := range 3 {
		e[keyLen+5+i] = byte(length >> (8 * (2 - i)))
	}
	bucket := &x.buckets[digest[0]]
	*bucket = append(*bucket, e)
	x.blocks++
}

// sort makes the index ready for find. Of a block that came twice the first counts,
// as offsets are a part of the order.
func (x *index) sort() {
	for i := range x.buckets {
		slices.SortFunc(x.buckets[i], func(a, b indexEntry) int { return bytes.Compare(a[:], b[:]) })
	}
}

func (x *index) find(digest string) (offset int64, length int, ok bool) {
	bucket, key := x.buckets[digest[0]], digest[1:1+keyLen]
	at := sort.Search(len(bucket), func(i int) bool { return string(bucket[i][:keyLen]) >= key })
	if at == len(bucket) || string(bucket[at][:keyLen]) != key {
		return 0, 0, false
	}
	e := bucket[at]
	for _, b := range e[keyLen : keyLen+5] {
		offset = offset<<8 | int64(b)
	}
	for _, b := range e[keyLen+5:] {
		length = length<<8 | int(b)
	}
	return offset, length, true
}
