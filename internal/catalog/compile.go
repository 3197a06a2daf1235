package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/lexicon"
)

// compiler turns lexicon definitions into schemas, each once.
type compiler struct {
	schemas *lexicon.BaseCatalog
	done    map[string]*Schema // by Def; there before its contents are, for recursion
}

// named compiles the definition of that name (see Schema.Def).
func (c *compiler) named(name string) (*Schema, error) {
	if done, ok := c.done[name]; ok {
		return done, nil
	}
	found, err := c.schemas.Resolve(name)
	if err != nil {
		return nil, fmt.Errorf("no loaded lexicon defines %s", name)
	}
	s := &Schema{Def: name}
	c.done[name] = s
	base, _, _ := strings.Cut(name, "#")
	if err := c.fill(s, found.Def, base); err != nil {
		return nil, fmt.Errorf("definition %s: %w", name, err)
	}
	return s, nil
}

// part compiles a definition inside of another, in the lexicon with the NSID base.
func (c *compiler) part(def any, base string) (*Schema, error) {
	if ref, ok := def.(lexicon.SchemaRef); ok {
		return c.named(fullName(ref.Ref, base))
	}
	s := &Schema{}
	return s, c.fill(s, def, base)
}

// fullName completes a reference made in the lexicon with the NSID base.
func fullName(ref, base string) string {
	if strings.HasPrefix(ref, "#") {
		ref = base + ref
	}
	return strings.TrimSuffix(ref, "#main")
}

func (c *compiler) fill(s *Schema, def any, base string) (err error) {
	switch def := def.(type) {
	case lexicon.SchemaRecord:
		err = c.fillObject(s, def.Record, base)
		s.Description = text(def.Description)
	case lexicon.SchemaObject:
		err = c.fillObject(s, def, base)
	case lexicon.SchemaArray:
		s.Type, s.Description = Array, text(def.Description)
		s.MinLength, s.MaxLength = def.MinLength, def.MaxLength
		s.Items, err = c.part(def.Items.Inner, base)
	case lexicon.SchemaUnion:
		err = c.fillUnion(s, def, base)
	case lexicon.SchemaUnknown:
		s.Type, s.Description = Unknown, text(def.Description)
	case lexicon.SchemaToken:
		s.Type, s.Description = Token, text(def.Description)
		s.valid = func(any) bool { return false }
	default:
		err = fillLeaf(s, def)
	}
	return err
}

func (c *compiler) fillObject(s *Schema, def lexicon.SchemaObject, base string) error {
	s.Type, s.Description = Object, text(def.Description)
	s.Properties = make([]Property, 0, len(def.Properties))
	s.byName = make(map[string]*Property, len(def.Properties))
	for _, name := range slices.Sorted(maps.Keys(def.Properties)) {
		inner := def.Properties[name].Inner
		schema, err := c.part(inner, base)
		if err != nil {
			return fmt.Errorf("property %s: %w", name, err)
		}
		p := Property{
			Name: name, Schema: schema, Description: schema.Description, segment: segment(name),
			Required: slices.Contains(def.Required, name), Nullable: def.IsNullable(name),
		}
		if ref, ok := inner.(lexicon.SchemaRef); ok {
			p.Description = text(ref.Description)
		}
		if p.Required {
			s.required++
		}
		s.Properties = append(s.Properties, p)
		s.byName[name] = &s.Properties[len(s.Properties)-1]
	}
	return nil
}

func (c *compiler) fillUnion(s *Schema, def lexicon.SchemaUnion, base string) error {
	s.Type, s.Description = Union, text(def.Description)
	s.Closed = def.Closed != nil && *def.Closed
	for _, ref := range def.Refs {
		variant, err := c.named(fullName(ref, base))
		if err != nil {
			return fmt.Errorf("union member: %w", err)
		}
		s.Variants = append(s.Variants, variant)
	}
	return nil
}

// fillLeaf compiles a type without parts. Whether a value is valid stays with
// the lexicon package, so that formats are what the protocol has them be.
func fillLeaf(s *Schema, def any) error {
	switch def := def.(type) {
	case lexicon.SchemaString:
		s.Type, s.Description, s.Format = String, text(def.Description), text(def.Format)
		s.MinLength, s.MaxLength = def.MinLength, def.MaxLength
		s.MinGraphemes, s.MaxGraphemes = def.MinGraphemes, def.MaxGraphemes
		s.KnownValues, s.Enum = def.KnownValues, values(def.Enum)
		s.Const, s.Default = value(def.Const), value(def.Default)
		s.valid = func(v any) bool { return def.Validate(v, 0) == nil }
		s.uriAlone = s.Format == "at-uri" && s.MinLength == nil && s.MaxLength == nil && s.MinGraphemes == nil && s.MaxGraphemes == nil && s.Enum == nil && s.Const == nil
	case lexicon.SchemaInteger:
		s.Type, s.Description = Integer, text(def.Description)
		s.Minimum, s.Maximum = int64s(def.Minimum), int64s(def.Maximum)
		s.Enum, s.Const, s.Default = values(def.Enum), value(def.Const), value(def.Default)
		s.valid = func(v any) bool { return def.Validate(v) == nil }
	case lexicon.SchemaBoolean:
		s.Type, s.Description = Boolean, text(def.Description)
		s.Const, s.Default = value(def.Const), value(def.Default)
		s.valid = func(v any) bool { return def.Validate(v) == nil }
	case lexicon.SchemaBytes:
		s.Type, s.Description = Bytes, text(def.Description)
		s.MinLength, s.MaxLength = def.MinLength, def.MaxLength
		s.valid = func(v any) bool { return def.Validate(v) == nil }
	case lexicon.SchemaCIDLink:
		s.Type, s.Description = CIDLink, text(def.Description)
		s.valid = func(v any) bool { return def.Validate(v) == nil }
	case lexicon.SchemaBlob:
		s.Type, s.Description = Blob, text(def.Description)
		s.Accept, s.MaxSize = def.Accept, int64s(def.MaxSize)
		s.valid = func(v any) bool { return def.Validate(v, 0) == nil }
	default:
		return fmt.Errorf("%T is not a type of data", def)
	}
	return nil
}

func values[T any](list []T) []any {
	var out []any
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// value is what a pointer points to, nil if nothing.
func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func int64s(p *int) *int64 {
	if p == nil {
		return nil
	}
	n := int64(*p)
	return &n
}
