package catalog

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// scanner takes a block apart in one pass. What it accepts is the one canonical
// DAG-CBOR form of a value of the AT Protocol data model
// (https://atproto.com/specs/data-model): re-encoding gives the same bytes. While it
// reads, it writes the value's JSON form, properties in the block's order.
//
// It allocates for the JSON alone: a length that the block declares is believed
// only if so many bytes are left, and recursion ends at MaxNesting.
type scanner struct {
	text string
	pos  int
	json []byte
	root []entry
}

// entry is a property of the record itself.
type entry struct {
	key   string
	value int // where in the text its value begins
}

// scan reads the whole block as one record.
func (s *scanner) scan() *Invalid {
	if s.text == "" || s.text[0]>>5 != majorMap {
		return &Invalid{Reason: "the block is not an object", Expected: "a DAG-CBOR map"}
	}
	if err := s.value(0); err != nil {
		return err.whole()
	}
	if s.pos != len(s.text) {
		return s.malformed("bytes follow the record")
	}
	return nil
}

// malformed is a breach of the encoding. The position helps whoever looks at the raw block.
func (s *scanner) malformed(reason string) *Invalid {
	return &Invalid{
		Reason: "not canonical DAG-CBOR: " + reason, Expected: "DAG-CBOR as the data model has it",
		Received: "byte " + strconv.Itoa(s.pos) + " of " + strconv.Itoa(len(s.text)),
	}
}

const truncated = "it ends before the value does"

// head reads the first bytes of an item: its major type and argument.
func (s *scanner) head() (major byte, argument uint64, err *Invalid) {
	if s.pos >= len(s.text) {
		return 0, 0, s.malformed(truncated)
	}
	first := s.text[s.pos]
	major, argument = first>>5, uint64(first&0x1f)
	if argument < 24 {
		s.pos++
		return major, argument, nil
	}
	if argument > 27 {
		return 0, 0, s.malformed("indefinite or reserved length")
	}
	width := 1 << (argument - 24)
	if len(s.text)-s.pos-1 < width {
		return 0, 0, s.malformed(truncated)
	}
	argument = 0
	for _, b := range []byte(s.text[s.pos+1 : s.pos+1+width]) {
		argument = argument<<8 | uint64(b)
	}
	if width == 1 && argument < 24 || width > 1 && argument>>(width*4) == 0 {
		return 0, 0, s.malformed("a number is longer than it needs to be")
	}
	s.pos += 1 + width
	return major, argument, nil
}

// value reads one item inside of depth containers.
func (s *scanner) value(depth int) *Invalid {
	if s.pos < len(s.text) && s.text[s.pos]>>5 == majorSimple {
		return s.simple()
	}
	start := s.pos
	major, n, err := s.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint, majorNegative:
		return s.integer(major, n)
	case majorBytes:
		return s.bytes(n)
	case majorText:
		text, err := s.string(n)
		s.json = appendString(s.json, text)
		return err
	case majorTag:
		return s.link(n)
	}
	if depth == MaxNesting {
		return &Invalid{Reason: "nested too deep", Expected: "at most " + strconv.Itoa(MaxNesting) + " containers inside of one another"}
	}
	if major == majorArray {
		return s.array(n, depth+1)
	}
	return s.object(n, depth+1, start)
}

func (s *scanner) simple() *Invalid {
	switch s.text[s.pos] {
	case cborFalse:
		s.json = append(s.json, "false"...)
	case cborTrue:
		s.json = append(s.json, "true"...)
	case cborNull:
		s.json = append(s.json, "null"...)
	case 0xf9, 0xfa, 0xfb:
		return &Invalid{Reason: "the data model has no floating-point numbers", Expected: "an integer, or a string", Received: "a floating-point number"}
	default:
		return s.malformed("a simple value other than false, true and null")
	}
	s.pos++
	return nil
}

func (s *scanner) integer(major byte, n uint64) *Invalid {
	sign := ""
	if major == majorNegative {
		sign = "-"
		if n++; n == 0 {
			return outOfRange("-18446744073709551616") // the one that has no room in n
		}
	}
	if n > maxInteger {
		return outOfRange(sign + strconv.FormatUint(n, 10))
	}
	s.json = append(s.json, sign...)
	s.json = strconv.AppendUint(s.json, n, 10)
	return nil
}

func outOfRange(received string) *Invalid {
	return &Invalid{Reason: "integer beyond 53 bits, which JSON cannot carry safely", Expected: "an integer from -9007199254740991 to 9007199254740991", Received: received}
}

// take is the next n bytes.
func (s *scanner) take(n uint64) (string, *Invalid) {
	if n > uint64(len(s.text)-s.pos) {
		return "", s.malformed(truncated)
	}
	part := s.text[s.pos : s.pos+int(n)]
	s.pos += int(n)
	return part, nil
}

func (s *scanner) string(n uint64) (string, *Invalid) {
	text, err := s.take(n)
	if err == nil && !utf8.ValidString(text) {
		err = s.malformed("a string is not UTF-8")
	}
	return text, err
}

func (s *scanner) bytes(n uint64) *Invalid {
	raw, err := s.take(n)
	if err != nil {
		return err
	}
	s.json = append(s.json, `{"$bytes":"`...)
	s.json = base64.RawStdEncoding.AppendEncode(s.json, []byte(raw))
	s.json = append(s.json, `"}`...)
	return nil
}

// link reads what tag 42 tags: a CID in bytes, after a zero byte
// (https://ipld.io/specs/codecs/dag-cbor/spec/#links).
func (s *scanner) link(tag uint64) *Invalid {
	if tag != linkTag {
		return s.malformed("a tag other than 42")
	}
	major, n, err := s.head()
	if err != nil {
		return err
	}
	if major != majorBytes {
		return s.malformed("a link without bytes")
	}
	raw, err := s.take(n)
	if err != nil {
		return err
	}
	if raw == "" || raw[0] != 0 {
		return s.malformed("a link without its prefix")
	}
	c, castErr := cid.Cast([]byte(raw[1:]))
	if castErr != nil {
		return s.malformed("a link that is no CID")
	}
	s.json = append(s.json, `{"$link":"`...)
	s.json = append(s.json, c.String()...)
	s.json = append(s.json, `"}`...)
	return nil
}

func (s *scanner) array(n uint64, depth int) *Invalid {
	if n > uint64(len(s.text)-s.pos) {
		return s.malformed(truncated)
	}
	s.json = append(s.json, '[')
	for i := range int(n) {
		if i > 0 {
			s.json = append(s.json, ',')
		}
		if err := s.value(depth); err != nil {
			return err.under(index(i))
		}
	}
	s.json = append(s.json, ']')
	return nil
}

func (s *scanner) object(n uint64, depth, start int) *Invalid {
	if n > uint64(len(s.text)-s.pos)/2 {
		return s.malformed(truncated)
	}
	s.json = append(s.json, '{')
	isBlob := false
	last := ""
	for i := range int(n) {
		key, err := s.key(i == 0, last)
		if err != nil {
			return err
		}
		last = key
		if i > 0 {
			s.json = append(s.json, ',')
		}
		s.json = append(appendString(s.json, key), ':')
		if depth == 1 {
			s.root = append(s.root, entry{key, s.pos})
		}
		value := s.pos
		if err := s.value(depth); err != nil {
			return err.under(segment(key))
		}
		if key == typeKey {
			if isBlob, err = s.checkType(value); err != nil {
				return err.under(segment(key))
			}
		}
	}
	s.json = append(s.json, '}')
	if isBlob {
		return checkBlob(reader{s.text, start})
	}
	return nil
}

// appendString writes a text as JSON has it, with no more escapes than it must:
// the control characters below U+0020, the quote and the backslash.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
	}
	return append(append(dst, s[done:]...), '"')
}
