package verify

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// The major types of CBOR that repository blocks have (RFC 8949, section 3.1).
const (
	cborUint     = 0
	cborNegative = 1
	cborBytes    = 2
	cborText     = 3
	cborArray    = 4
	cborMap      = 5
	cborTag      = 6
	cborSimple   = 7
)

const (
	cborNull    = 0xf6
	linkTag     = 42
	maxNesting  = 32 // containers inside of one another, as for records
	maxTextSize = 1 << 16
)

var errTruncated = errors.New("it ends before the value does")

// cborReader takes a block apart. It accepts the canonical form of DAG-CBOR alone
// (https://ipld.io/specs/codecs/dag-cbor/spec/), so that a block that it has read is
// the only one of its content. What it returns are slices of the block.
type cborReader struct {
	data []byte
	pos  int
}

func (r *cborReader) fail(format string, args ...any) error {
	return fmt.Errorf("byte %d of %d: %w", r.pos, len(r.data), fmt.Errorf(format, args...))
}

// head reads the first bytes of an item: its major type and argument.
func (r *cborReader) head() (major byte, argument uint64, err error) {
	if r.pos >= len(r.data) {
		return 0, 0, errTruncated
	}
	first := r.data[r.pos]
	major, argument = first>>5, uint64(first&0x1f)
	if argument < 24 {
		r.pos++
		return major, argument, nil
	}
	if argument > 27 {
		return 0, 0, r.fail("indefinite or reserved length")
	}
	width := 1 << (argument - 24)
	if len(r.data)-r.pos-1 < width {
		return 0, 0, errTruncated
	}
	argument = 0
	for _, b := range r.data[r.pos+1 : r.pos+1+width] {
		argument = argument<<8 | uint64(b)
	}
	if width == 1 && argument < 24 || width > 1 && argument>>(width*4) == 0 {
		return 0, 0, r.fail("a number is longer than it needs to be")
	}
	r.pos += 1 + width
	return major, argument, nil
}

// expect reads the head of an item that must be of the given major type.
func (r *cborReader) expect(want byte) (uint64, error) {
	start := r.pos
	major, argument, err := r.head()
	if err == nil && major != want {
		r.pos = start
		err = r.fail("major type %d in place of %d", major, want)
	}
	return argument, err
}

// take is the next n bytes.
func (r *cborReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.data)-r.pos) {
		return nil, errTruncated
	}
	part := r.data[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return part, nil
}

func (r *cborReader) bytes() ([]byte, error) {
	n, err := r.expect(cborBytes)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

func (r *cborReader) text() ([]byte, error) {
	n, err := r.expect(cborText)
	if err != nil {
		return nil, err
	}
	if n > maxTextSize {
		return nil, r.fail("a text of %d bytes", n)
	}
	part, err := r.take(n)
	if err == nil && !utf8.Valid(part) {
		err = r.fail("a text is not UTF-8")
	}
	return part, err
}

// name reads a map's key that must be the given one, which has less than 24 bytes.
func (r *cborReader) name(want string) error {
	if end := r.pos + 1 + len(want); end <= len(r.data) && r.data[r.pos] == cborText<<5|byte(len(want)) && string(r.data[r.pos+1:end]) == want {
		r.pos = end
		return nil
	}
	return r.fail("the property %q is expected", want)
}

// link reads a CID under its tag.
func (r *cborReader) link() (cid.Cid, error) {
	tag, err := r.expect(cborTag)
	if err != nil {
		return cid.Undef, err
	}
	if tag != linkTag {
		return cid.Undef, r.fail("tag %d in place of %d", tag, linkTag)
	}
	raw, err := r.bytes()
	if err != nil {
		return cid.Undef, err
	}
	if len(raw) == 0 || raw[0] != 0 {
		return cid.Undef, r.fail("a link without its prefix")
	}
	return parseCID(raw[1:])
}

// nullableLink is nil for null.
func (r *cborReader) nullableLink() (*cid.Cid, error) {
	if r.pos < len(r.data) && r.data[r.pos] == cborNull {
		r.pos++
		return nil, nil
	}
	c, err := r.link()
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// skip reads past an item of any kind inside of depth containers, as strictly.
func (r *cborReader) skip(depth int) error {
	if r.pos < len(r.data) {
		switch first := r.data[r.pos]; first >> 5 {
		case cborTag:
			_, err := r.link()
			return err
		case cborText:
			_, err := r.text()
			return err
		case cborSimple:
			if first != 0xf4 && first != 0xf5 && first != cborNull {
				return r.fail("a float, or a simple value other than false, true and null")
			}
			r.pos++
			return nil
		}
	}
	major, n, err := r.head()
	if err != nil {
		return err
	}
	switch major {
	case cborUint, cborNegative:
		return nil
	case cborBytes:
		_, err := r.take(n)
		return err
	}
	if depth == maxNesting {
		return r.fail("nested too deep")
	}
	if major == cborMap {
		return r.entries(n, func(string) error { return r.skip(depth + 1) })
	}
	if n > uint64(len(r.data)-r.pos) {
		return errTruncated
	}
	for range n {
		if err := r.skip(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the n entries of a map; value reads what belongs to a key. Keys
// must be in their order, shorter ones first, each once.
func (r *cborReader) entries(n uint64, value func(key string) error) error {
	if n > uint64(len(r.data)-r.pos)/2 {
		return errTruncated
	}
	var last []byte
	for i := range n {
		key, err := r.text()
		if err != nil {
			return err
		}
		if i > 0 && !shorterFirst(last, key) {
			return r.fail("the key %.40q is out of order, or there twice", key)
		}
		if err := value(string(key)); err != nil {
			return err
		}
		last = key
	}
	return nil
}

func shorterFirst(a, b []byte) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return bytes.Compare(a, b) < 0
}

// end fails if bytes are left.
func (r *cborReader) end() error {
	if r.pos != len(r.data) {
		return r.fail("bytes follow the value")
	}
	return nil
}

// cidLen is the length of the one kind of CID that repositories use: version 1,
// DAG-CBOR or raw, SHA-256 (https://atproto.com/specs/repository, "CID Formats").
const cidLen = 36

func parseCID(raw []byte) (cid.Cid, error) {
	if len(raw) != cidLen || raw[0] != 1 || raw[1] != cid.DagCBOR && raw[1] != cid.Raw || raw[2] != 0x12 || raw[3] != 32 {
		return cid.Undef, fmt.Errorf("CID %.8x…: only version 1, DAG-CBOR or raw, SHA-256 is allowed", raw)
	}
	c, err := cid.Cast(raw)
	if err != nil {
		return cid.Undef, fmt.Errorf("CID %x: %w", raw, err)
	}
	return c, nil
}
