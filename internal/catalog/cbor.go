package catalog

import (
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// The major types of CBOR (RFC 8949, section 3.1).
const (
	majorUint byte = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// The single bytes that DAG-CBOR has besides the majors' heads.
const (
	cborFalse = 0xf4
	cborTrue  = 0xf5
	cborNull  = 0xf6
	linkTag   = 42
)

// reader reads DAG-CBOR that the scanner has accepted, so it checks nothing.
// Strings it returns are parts of the text: clone what outlives the block.
type reader struct {
	text string
	pos  int
}

func (r *reader) major() byte { return r.text[r.pos] >> 5 }

// head reads the first bytes of an item: its major type and argument.
func (r *reader) head() (major byte, argument uint64) {
	first := r.text[r.pos]
	r.pos++
	major, info := first>>5, first&0x1f
	if info < 24 {
		return major, uint64(info)
	}
	for range 1 << (info - 24) {
		argument = argument<<8 | uint64(r.text[r.pos])
		r.pos++
	}
	return major, argument
}

// container reads the head of an array or a map: how many items or entries follow.
func (r *reader) container() int {
	_, n := r.head()
	return int(n)
}

// string reads a text, or the contents of bytes.
func (r *reader) string() string {
	_, n := r.head()
	s := r.text[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return s
}

// skip passes over one item and all that it holds.
func (r *reader) skip() {
	for left := 1; left > 0; left-- {
		switch major, n := r.head(); major {
		case majorBytes, majorText:
			r.pos += int(n)
		case majorArray:
			left += int(n)
		case majorMap:
			left += 2 * int(n)
		case majorTag:
			left++
		}
	}
}

// scalar reads one item as the protocol's packages have it: nil, bool, int64,
// string, atdata.Bytes or atdata.CIDLink. A container it skips, and returns itself.
func (r *reader) scalar() any {
	switch r.major() {
	case majorText:
		return r.string()
	case majorUint:
		_, n := r.head()
		return int64(n)
	case majorNegative:
		_, n := r.head()
		return -1 - int64(n)
	case majorBytes:
		return atdata.Bytes(r.string())
	case majorTag:
		return atdata.CIDLink(r.link())
	case majorArray, majorMap:
		r.skip()
		return container{}
	}
	r.pos++
	switch r.text[r.pos-1] {
	case cborFalse:
		return false
	case cborTrue:
		return true
	}
	return nil
}

// container stands for a map or an array where neither is expected.
type container struct{}

func (r *reader) link() cid.Cid {
	r.head()
	c, err := cid.Cast([]byte(r.string()[1:])) // after the multibase prefix
	if err != nil {
		panic("catalog: link in scanned CBOR: " + err.Error())
	}
	return c
}

const (
	typeKey  = "$type"
	blobType = "blob" // of the data model's blobs
)

// typeName reads ahead to the $type of the map that comes next. Names are in
// order, shorter ones first, so it has not far to go.
func (r reader) typeName() (string, bool) {
	for range r.container() {
		switch key := r.string(); {
		case key == typeKey:
			return r.string(), true
		case len(key) > len(typeKey):
			return "", false
		}
		r.skip()
	}
	return "", false
}

// blob reads a blob that the scanner has recognised by its $type.
func (r *reader) blob() atdata.Blob {
	var b atdata.Blob
	for range r.container() {
		switch r.string() {
		case "ref":
			b.Ref = atdata.CIDLink(r.link())
		case "mimeType":
			b.MimeType = r.string()
		case "size":
			_, n := r.head()
			b.Size = int64(n)
		default:
			r.skip()
		}
	}
	return b
}

// isLeaf tells whether a scalar is of the schema's type, whatever its value.
func (s *Schema) isLeaf(v any) bool {
	switch v.(type) {
	case int64:
		return s.Type == Integer
	case bool:
		return s.Type == Boolean
	case atdata.Bytes:
		return s.Type == Bytes
	case atdata.CIDLink:
		return s.Type == CIDLink
	}
	return false
}
