package rest

import (
	"strings"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Named is a schema that is among the document's components under a name.
func Named(name string, s Schema) Schema { return Schema{namedKey: name, schemaKey: s} }

// Markers of [Named], which the document's writer replaces by a $ref.
const (
	namedKey  = "\x00name"
	schemaKey = "\x00schema"
)

// Object is the schema of an object. A property whose name ends in ? may be left out.
func Object(properties map[string]Schema) Schema {
	required, all := []string{}, map[string]any{}
	for name, s := range properties {
		bare, optional := strings.CutSuffix(name, "?")
		if !optional {
			required = append(required, bare)
		}
		all[bare] = s
	}
	object := Schema{"type": "object", "properties": all}
	if len(required) > 0 {
		object["required"] = sorted(required)
	}
	return object
}

// List is the schema of an array.
func List(items Schema) Schema { return Schema{"type": "array", "items": items} }

// Map is the schema of an object whose property names are data.
func Map(values Schema) Schema { return Schema{"type": "object", "additionalProperties": values} }

// String is any text.
func String(description string) Schema {
	return Schema{"type": "string", "description": description}
}

// Integer is a whole number.
func Integer(description string) Schema {
	return Schema{"type": "integer", "description": description}
}

// Boolean is true or false.
func Boolean(description string) Schema {
	return Schema{"type": "boolean", "description": description}
}

// Nullable is a schema that null matches as well.
func Nullable(s Schema) Schema { return Schema{"anyOf": []any{s, Schema{"type": "null"}}} }

// Views of records, in every answer that has some.
func recordSchema(t *recordType) Schema { return viewSchema(valueSchema(t)) }

func valueSchema(t *recordType) Schema {
	return Schema{"anyOf": []any{typeSchema(t.collection.Schema), Schema{"type": "object", "description": "Parts of the value, where `fields` chose some."}}}
}

func viewSchema(value Schema) Schema {
	return Object(map[string]Schema{
		"uri":       uriSchema("The record."),
		"cid":       String("Of the record as it is in its repository: two values with one CID are the same."),
		"value":     value,
		"included?": includedSchema(),
	})
}

// anyView is the schema of a record of any collection.
func anyView() Schema {
	return Named("Record", Object(map[string]Schema{
		"uri": uriSchema("The record."), "cid": String("Of the record as it is in its repository."),
		"value": {"type": "object", "description": "The record, as its lexicon has it."},
	}))
}

func includedSchema() Schema {
	s := Map(anyView())
	s["description"] = "The records that `expand` asked for, by AT-URI. What is dangling is not among them."
	return s
}

func pageSchema(t *recordType) Schema {
	return Object(map[string]Schema{
		"records":   List(viewSchema(valueSchema(t))),
		"cursor?":   cursorSchema(),
		"included?": includedSchema(),
	})
}

func cursorSchema() Schema {
	return String("Continues the list; absent on the last page.")
}

func uriSchema(description string) Schema {
	return Schema{"type": "string", "format": "at-uri", "description": description}
}

// typeSchema is the JSON Schema of a lexicon's definition or a part of one. Whole
// definitions become components, so that those that contain themselves come to an end.
func typeSchema(s *catalog.Schema) Schema {
	if s.Def == "" {
		return plainSchema(s)
	}
	return Named(s.Def, Schema{lexiconKey: s})
}

// lexiconKey marks a component that is made when the document's writer first meets it.
const lexiconKey = "\x00lexicon"

func plainSchema(s *catalog.Schema) Schema {
	out := Schema{}
	if s.Description != "" {
		out["description"] = s.Description
	}
	switch s.Type {
	case catalog.Object:
		objectSchema(out, s)
	case catalog.Array:
		out["type"], out["items"] = "array", typeSchema(s.Items)
		put(out, "minItems", s.MinLength)
		put(out, "maxItems", s.MaxLength)
	case catalog.Union:
		unionSchema(out, s)
	case catalog.String, catalog.Token:
		stringSchema(out, s)
	case catalog.Integer:
		out["type"] = "integer"
		put(out, "minimum", s.Minimum)
		put(out, "maximum", s.Maximum)
	case catalog.Boolean:
		out["type"] = "boolean"
	case catalog.Bytes:
		wrapped(out, Object(map[string]Schema{"$bytes": String("Base64.")}))
	case catalog.CIDLink:
		wrapped(out, linkSchema())
	case catalog.Blob:
		wrapped(out, blobSchema())
	default:
		out["type"] = "object"
	}
	if s.Enum != nil {
		out["enum"] = s.Enum
	}
	if s.Const != nil {
		out["const"] = s.Const
	}
	if s.Default != nil {
		out["default"] = s.Default
	}
	return out
}

func put[T any](out Schema, name string, bound *T) {
	if bound != nil {
		out[name] = *bound
	}
}

func wrapped(out, s Schema) {
	for name, v := range s {
		out[name] = v
	}
}

func objectSchema(out Schema, s *catalog.Schema) {
	properties, required := map[string]any{}, []string{}
	for i := range s.Properties {
		p := &s.Properties[i]
		schema := typeSchema(p.Schema)
		if p.Nullable {
			schema = Nullable(schema)
		}
		if p.Description != "" && p.Description != p.Schema.Description {
			// A $ref with a description beside it, as JSON Schema 2020-12 allows.
			schema = Schema{"allOf": []any{schema}, "description": p.Description}
		}
		properties[p.Name] = schema
		if p.Required {
			required = append(required, p.Name)
		}
	}
	if s.Def != "" && properties["$type"] == nil {
		properties["$type"] = Schema{"type": "string", "description": "Names the kind of object."}
	}
	out["type"], out["properties"] = "object", properties
	if len(required) > 0 {
		out["required"] = required
	}
}

func unionSchema(out Schema, s *catalog.Schema) {
	var members []any
	for _, v := range s.Variants {
		members = append(members, typeSchema(v))
	}
	if !s.Closed {
		members = append(members, Schema{"type": "object", "required": []string{"$type"}, "properties": map[string]any{"$type": Schema{"type": "string"}}, "description": "Another kind, named by its `$type`."})
	}
	out["anyOf"] = members
}

// stringSchema leaves bounds out that count bytes where JSON Schema would count
// characters more strictly.
func stringSchema(out Schema, s *catalog.Schema) {
	out["type"] = "string"
	put(out, "maxLength", s.MaxLength)
	if s.Format != "" {
		out["format"] = formatName(s.Format)
	}
	if len(s.KnownValues) > 0 {
		out["examples"] = s.KnownValues
	}
}

func formatName(format string) string {
	if format == "datetime" {
		return "date-time"
	}
	return format
}

func linkSchema() Schema { return Object(map[string]Schema{"$link": String("A CID.")}) }

func blobSchema() Schema {
	return Object(map[string]Schema{
		"$type": {"const": "blob"}, "ref": linkSchema(), "mimeType": String("Media type."), "size": Integer("Bytes."),
	})
}
