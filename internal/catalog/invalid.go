package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
)

// Invalid is why a record is refused: the first breach that was met. Every part is
// short, printable ASCII as far as it comes from the record, and free of NUL.
type Invalid struct {
	Path     string // to the breach: annotations[3].label; empty for the record as a whole
	Reason   string
	Expected string // what the rule asks for; may be empty
	Received string // what is there, cut short; may be empty
}

// Error says all of it on one line.
func (e *Invalid) Error() string {
	var b strings.Builder
	b.WriteString("invalid record: ")
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	if e.Expected != "" {
		b.WriteString("; expected " + e.Expected)
	}
	if e.Received != "" {
		b.WriteString("; received " + e.Received)
	}
	return b.String()
}

// under puts a segment before the path of a breach, as the error leaves the
// value that the segment leads to.
func (e *Invalid) under(segment string) *Invalid {
	e.Path = segment + e.Path
	return e
}

// whole finishes the path at the record's root.
func (e *Invalid) whole() *Invalid {
	e.Path = strings.TrimPrefix(e.Path, ".")
	return e
}

// index is an array element in a path.
func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

const maxSegment = 64 // bytes of a property's name that a path shows

// segment is a property in a path: .name, or ["any name"].
func segment(name string) string {
	if len(name) <= maxSegment && isWord(name) {
		return "." + name
	}
	return "[" + excerpt(name, maxSegment) + "]"
}

func isWord(name string) bool {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '$' {
			return false
		}
	}
	return name != ""
}

// excerpt quotes a text in ASCII, cut short.
func excerpt(s string, limit int) string {
	if len(s) <= limit {
		return strconv.QuoteToASCII(s)
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return strconv.QuoteToASCII(s[:limit]) + "..."
}

const maxExcerpt = 80 // bytes of a text that Received shows

// describe says what the next value is, in a few words.
func describe(r reader) string {
	switch r.major() {
	case majorArray:
		return fmt.Sprintf("an array of %d", r.container())
	case majorMap:
		if name, ok := r.typeName(); ok {
			return "an object of type " + excerpt(name, maxExcerpt)
		}
		return fmt.Sprintf("an object of %d properties", r.container())
	case majorText:
		s := r.string()
		if len(s) > maxExcerpt {
			return fmt.Sprintf("%s (%d bytes)", excerpt(s, maxExcerpt), len(s))
		}
		return excerpt(s, maxExcerpt)
	case majorBytes:
		return fmt.Sprintf("%d bytes", len(r.string()))
	case majorTag:
		return "a link"
	}
	switch v := r.scalar().(type) {
	case nil:
		return "null"
	default:
		return fmt.Sprint(v)
	}
}

// expected says what a value of the schema is, in a few words.
func (s *Schema) expected() string {
	switch s.Type {
	case String:
		return s.expectedString()
	case Integer:
		return "an integer" + between(s.Minimum, s.Maximum, "") + oneOf(s)
	case Boolean:
		return "a boolean" + oneOf(s)
	case Bytes:
		return "bytes" + between(s.MinLength, s.MaxLength, " bytes")
	case CIDLink:
		return "a link to a CID"
	case Blob:
		return s.expectedBlob()
	case Array:
		return "an array" + between(s.MinLength, s.MaxLength, " elements")
	case Union:
		return s.expectedVariant()
	case Token:
		return "no value at all: the lexicon has a token here"
	}
	return "an object"
}

func (s *Schema) expectedString() string {
	out := "a string"
	if s.Format != "" {
		out += " of format " + s.Format
	}
	return out + between(s.MinLength, s.MaxLength, " bytes") + between(s.MinGraphemes, s.MaxGraphemes, " graphemes") + oneOf(s)
}

func (s *Schema) expectedBlob() string {
	out := "a blob"
	if s.MaxSize != nil {
		out += fmt.Sprintf(" of at most %d bytes", *s.MaxSize)
	}
	if len(s.Accept) > 0 {
		out += " of type " + strings.Join(s.Accept, ", ")
	}
	return out
}

func (s *Schema) expectedVariant() string {
	names := make([]string, len(s.Variants))
	for i, v := range s.Variants {
		names[i] = v.Def
	}
	return "an object with $type " + strings.Join(names, ", ")
}

// between says the bounds of a number.
func between[N int | int64](least, most *N, unit string) string {
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf(", %d to %d%s", *least, *most, unit)
	case least != nil:
		return fmt.Sprintf(", at least %d%s", *least, unit)
	case most != nil:
		return fmt.Sprintf(", at most %d%s", *most, unit)
	}
	return ""
}

const maxListed = 20 // values of an enumeration that a message names

// oneOf names the only values there are.
func oneOf(s *Schema) string {
	if s.Const != nil {
		return fmt.Sprintf(", %v", s.Const)
	}
	if len(s.Enum) == 0 {
		return ""
	}
	shown := make([]string, 0, maxListed)
	for _, v := range s.Enum[:min(len(s.Enum), maxListed)] {
		shown = append(shown, fmt.Sprint(v))
	}
	return ", one of " + strings.Join(shown, ", ")
}

// breach says which rule a value of the right type breaks. The lexicon package
// has found that it breaks one.
func (s *Schema) breach(v any) string {
	length := 0
	switch v := v.(type) {
	case string:
		length = len(v)
	case atdata.Bytes:
		length = len(v)
	}
	graphemes := lexicon.SchemaString{MinGraphemes: s.MinGraphemes, MaxGraphemes: s.MaxGraphemes}
	switch {
	case s.Type == Token:
		return "a token stands for itself and is no value"
	case s.Const != nil && v != s.Const, len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
		return "not a value allowed"
	case s.Type == Integer:
		return "number out of bounds"
	case s.MinLength != nil && length < *s.MinLength, s.MaxLength != nil && length > *s.MaxLength, graphemes.Validate(v, 0) != nil:
		return "length out of bounds"
	}
	return "not of format " + s.Format
}
