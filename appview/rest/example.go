package rest

import (
	"slices"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// exampleText is a string of one of the lexicons' formats.
func exampleText(format string) string {
	switch format {
	case "at-uri":
		return exampleURI("pub.layers.expression.expression")
	case "at-identifier", "did":
		return "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	case "handle":
		return "alice.example"
	case "nsid":
		return "pub.layers.corpus.corpus"
	case "cid":
		return exampleCID
	case "tid", "record-key":
		return "3lwafzkjqm25s"
	case "datetime":
		return "2026-03-14T09:26:53.589Z"
	case "language":
		return "yo"
	case "uri":
		return "https://www.wikidata.org/entity/Q34311"
	}
	return "example"
}

const exampleCID = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

func sorted(names []string) []string { slices.Sort(names); return names }

// exampleRecord is a record of the type with what its lexicon requires.
func (t *recordType) exampleRecord() any {
	value := exampleValue(t.collection.Schema, 0).(map[string]any)
	value["$type"] = string(t.collection.NSID)
	return map[string]any{"uri": exampleURI(t.collection.NSID), "cid": exampleCID, "value": value}
}

func (t *recordType) examplePage() any {
	return map[string]any{"records": []any{t.exampleRecord()}}
}

// exampleValue is a small value that a schema allows.
func exampleValue(s *catalog.Schema, depth int) any {
	if s.Const != nil {
		return s.Const
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch s.Type {
	case catalog.Object:
		value := map[string]any{}
		for i := range s.Properties {
			if p := &s.Properties[i]; p.Required && depth < 6 {
				value[p.Name] = exampleValue(p.Schema, depth+1)
			}
		}
		return value
	case catalog.Array:
		if depth >= 6 || (s.MinLength == nil && depth > 1) {
			return []any{}
		}
		return []any{exampleValue(s.Items, depth+1)}
	case catalog.Union:
		return exampleMember(s, depth)
	case catalog.Integer:
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 1
	case catalog.Boolean:
		return true
	case catalog.Bytes:
		return map[string]any{"$bytes": "AQID"}
	case catalog.CIDLink:
		return map[string]any{"$link": exampleCID}
	case catalog.Blob:
		return map[string]any{"$type": "blob", "ref": map[string]any{"$link": exampleCID}, "mimeType": "audio/flac", "size": 1024}
	case catalog.Unknown:
		return map[string]any{}
	}
	if len(s.KnownValues) > 0 {
		return s.KnownValues[0]
	}
	return exampleText(s.Format)
}

func exampleMember(s *catalog.Schema, depth int) any {
	if len(s.Variants) == 0 {
		return map[string]any{"$type": "com.example.thing"}
	}
	value, ok := exampleValue(s.Variants[0], depth+1).(map[string]any)
	if !ok {
		return map[string]any{"$type": s.Variants[0].Def}
	}
	value["$type"] = s.Variants[0].Def
	return value
}
