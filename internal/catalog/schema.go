package catalog

// Type is a type of the lexicon language.
type Type string

// The types of values, and token, which no value has.
const (
	String  Type = "string"
	Integer Type = "integer"
	Boolean Type = "boolean"
	Bytes   Type = "bytes"
	CIDLink Type = "cid-link"
	Blob    Type = "blob"
	Object  Type = "object"
	Array   Type = "array"
	Union   Type = "union"
	Unknown Type = "unknown"
	Token   Type = "token"
)

// Schema is a lexicon definition, or a part of one, with its references resolved:
// where the lexicon has a ref, the tree goes on with the definition itself. One
// definition is one Schema however often it is referred to, and may contain
// itself: whoever walks the tree keeps count of the definitions it is inside.
//
// Schemas belong to the catalog and are shared. Read them only.
type Schema struct {
	Type        Type
	Def         string // $type of the definition this is the whole of (pub.layers.defs#anchor; an NSID alone for a main definition); empty for a part of one
	Description string

	// Of strings, where the lexicon says so. Lengths count bytes of UTF-8.
	Format                     string
	MinGraphemes, MaxGraphemes *int
	KnownValues                []string // values to expect; others are valid too

	// Of strings and bytes in bytes, of arrays in elements.
	MinLength, MaxLength *int

	Minimum, Maximum *int64 // of integers

	// Of strings (string), integers (int) and booleans (bool).
	Enum           []any // the only values there are, if any are named
	Const, Default any

	Properties []Property // of objects, sorted by name
	Items      *Schema    // of arrays

	// Of unions: the definitions that a value's $type can name, in the lexicon's
	// order. An open union, not Closed, also takes types that are not listed.
	Variants []*Schema
	Closed   bool

	// Of blobs: media types, perhaps with a * at the end, and bytes.
	Accept  []string
	MaxSize *int64

	valid    func(value any) bool // the protocol's own check of a value that is no container
	byName   map[string]*Property
	uriAlone bool // any AT-URI is valid
	required int  // how many properties are required
}

// Property is one property of an object.
type Property struct {
	Name        string
	Required    bool
	Nullable    bool
	Description string // what it is here; if empty, the Schema may describe its kind in general
	Schema      *Schema

	segment string // as it stands in a path
}

// Property finds a property by name; nil if the schema has none.
func (s *Schema) Property(name string) *Property { return s.byName[name] }

// variant finds the member of a union that a $type names. A main definition may
// be named with or without its #main.
func (s *Schema) variant(typeName string) *Schema {
	for _, v := range s.Variants {
		if v.Def == typeName {
			return v
		}
	}
	return nil
}
