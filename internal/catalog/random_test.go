package catalog_test

import (
	"math/rand/v2"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

func mustCID(text string) atdata.CIDLink {
	c, err := cid.Decode(text)
	if err != nil {
		panic(err)
	}
	return atdata.CIDLink(c)
}

// links are CIDs of all kinds: version 1 with SHA-256, SHA-512 and identity, and version 0.
var links = []atdata.CIDLink{
	snapshot, mustCID("bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
	mustCID("bafkrgqgm3ew2ewz2hacmskq7l5ogoxuh5cpanqoeqbmppknlmkwcq3yaqxsmefuqxpgkihlz5fvhlf2uuvzpkgs5okgkmnzj7rnqzclq2uqnw"),
	mustCID("bafkqaaa"), mustCID("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"),
}

// words are strings that a text format, a store or a client may trip over.
var words = []string{
	"", "a", "Ọ̀rọ̀", "言語", "𐎠𐏃𐎼", "👩‍👩‍👧‍👦", "\x00", "a\x00b", "\u2028\u2029", "\x7f\x1b[31m", "\b\f\n\r\t\"\\/", "<script>&amp;</script>", "\uffff\U0010ffff", "\ufeff",
	"null", "0", "-0", "1e3", "$link", "$bytes", "$type", "at://did:plc:abc/app.bsky.feed.post/1", "at://", "sha256:x", strings.Repeat("long ", 60), strings.Repeat("𝔄", 65),
}

var keys = []string{
	"a", "b", "text", "uri", "cid", "$", "$links", "$byte", "$link2", "$Bytes", " $link", "ref", "size", "", "\x00", "a.b", "[]", "\"", "言語", "éa", "eá", "mimetype", strings.Repeat("k", 300),
}

// anyValue is a random value of the data model.
func anyValue(r *rand.Rand, depth int) any {
	n := r.IntN(13)
	if depth <= 0 {
		n = r.IntN(10)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return anyInteger(r)
	case 3:
		return atdata.Bytes(anyBytes(r))
	case 4:
		return links[r.IntN(len(links))]
	case 5:
		return atdata.Blob{Ref: links[r.IntN(len(links))], MimeType: words[r.IntN(len(words))], Size: r.Int64N(1 << 40)}
	case 6:
		return map[string]any{}
	case 7:
		return []any{}
	case 8, 9:
		return words[r.IntN(len(words))]
	case 10:
		list := make([]any, r.IntN(5))
		for i := range list {
			list[i] = anyValue(r, depth-1)
		}
		return list
	}
	return anyObject(r, depth-1)
}

func anyObject(r *rand.Rand, depth int) map[string]any {
	object := map[string]any{}
	for range r.IntN(9) {
		object[keys[r.IntN(len(keys))]] = anyValue(r, depth)
	}
	if r.IntN(4) == 0 {
		object["$type"] = "org.example.any#thing"
	}
	return object
}

// anyInteger is of any size that the data model has, near where CBOR's heads grow too.
func anyInteger(r *rand.Rand) int64 {
	const most = 1<<53 - 1
	edges := []int64{0, 1, 22, 23, 24, 25, 254, 255, 256, 257, 65534, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<32 + 1, most - 1, most}
	n := edges[r.IntN(len(edges))]
	if r.IntN(3) == 0 {
		n = r.Int64N(most + 1)
	}
	if r.IntN(2) == 0 {
		return -n
	}
	return n
}

func anyBytes(r *rand.Rand) []byte {
	b := make([]byte, r.IntN(40)*r.IntN(8))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// valueOf is a random valid value of a schema: required properties, and others
// while depth lasts.
func valueOf(r *rand.Rand, s *catalog.Schema, depth int) any {
	switch s.Type {
	case catalog.Object:
		object := map[string]any{}
		for _, p := range s.Properties {
			if p.Required || depth > 0 && r.IntN(3) > 0 {
				object[p.Name] = valueOf(r, p.Schema, depth-1)
			}
			if p.Nullable && r.IntN(3) == 0 {
				object[p.Name] = nil
			}
		}
		return object
	case catalog.Array:
		return arrayOf(r, s, depth)
	case catalog.Union:
		variant := s.Variants[r.IntN(len(s.Variants))]
		object := valueOf(r, variant, depth).(map[string]any)
		object["$type"] = variant.Def
		return object
	case catalog.Unknown:
		return anyObject(r, depth)
	case catalog.Blob:
		return atdata.Blob{Ref: links[0], MimeType: acceptable(s), Size: 1}
	case catalog.Bytes:
		return atdata.Bytes("1234")
	case catalog.CIDLink:
		return links[r.IntN(len(links))]
	case catalog.Boolean:
		return s.Const != nil || r.IntN(2) == 0
	case catalog.Integer:
		return integerOf(r, s)
	}
	return stringOf(r, s)
}

func arrayOf(r *rand.Rand, s *catalog.Schema, depth int) []any {
	n := r.IntN(4)
	if s.MinLength != nil {
		n = max(n, *s.MinLength)
	}
	if s.MaxLength != nil {
		n = min(n, *s.MaxLength)
	}
	list := make([]any, n)
	for i := range list {
		list[i] = valueOf(r, s.Items, depth)
	}
	return list
}

func acceptable(s *catalog.Schema) string {
	if len(s.Accept) == 0 {
		return "text/plain"
	}
	return strings.ReplaceAll(s.Accept[0], "*", "x")
}

func integerOf(r *rand.Rand, s *catalog.Schema) int64 {
	if len(s.Enum) > 0 {
		return int64(s.Enum[r.IntN(len(s.Enum))].(int))
	}
	least, most := int64(-1000), int64(1<<40)
	if s.Minimum != nil {
		least = *s.Minimum
	}
	if s.Maximum != nil {
		most = *s.Maximum
	}
	return least + r.Int64N(most-least+1)
}

var formatted = map[string][]string{
	"at-uri":        {"at://did:plc:abc/pub.layers.corpus.corpus/x", "at://did:plc:abc/pub.layers.corpus.corpus/y", "at://name.example/a.b.c/self", "at://did:web:x.example"},
	"datetime":      {"2026-01-02T03:04:05Z", "1985-04-12T23:20:50.123-07:00", "0001-01-01T00:00:00Z"},
	"did":           {"did:plc:abc", "did:web:name.example"},
	"uri":           {"https://example.org/a?b#c", "doi:10.1/2"},
	"cid":           {"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
	"language":      {"yo", "zh-Hant-TW"},
	"nsid":          {"pub.layers.corpus.corpus"},
	"handle":        {"name.example"},
	"at-identifier": {"name.example", "did:plc:abc"},
	"tid":           {"3l6oveex3ii2l"},
	"record-key":    {"self", "a:b_c~d.e-f"},
}

func stringOf(r *rand.Rand, s *catalog.Schema) string {
	switch {
	case len(s.Enum) > 0:
		return s.Enum[r.IntN(len(s.Enum))].(string)
	case s.Format != "":
		return formatted[s.Format][r.IntN(len(formatted[s.Format]))]
	case len(s.KnownValues) > 0 && r.IntN(3) > 0:
		return s.KnownValues[r.IntN(len(s.KnownValues))]
	}
	text := words[r.IntN(len(words))]
	if s.MaxLength != nil && len(text) > *s.MaxLength || s.MinLength != nil && len(text) < *s.MinLength || s.MaxGraphemes != nil {
		return "ab"
	}
	return text
}

// mutate changes one place of a value, at any depth, into something else, which
// may or may not be valid there.
func mutate(r *rand.Rand, value any) any {
	if r.IntN(6) > 0 {
		switch v := value.(type) {
		case map[string]any:
			if len(v) > 0 {
				return mutateObject(r, v)
			}
		case []any:
			if len(v) > 0 {
				i := r.IntN(len(v))
				v[i] = mutate(r, v[i])
				return v
			}
		}
	}
	return otherValue(r, value)
}

func mutateObject(r *rand.Rand, object map[string]any) any {
	names := sortedKeys(object)
	name := names[r.IntN(len(names))]
	switch r.IntN(8) {
	case 0:
		delete(object, name)
	case 1:
		object[keys[r.IntN(len(keys))]] = anyValue(r, 1)
	case 2:
		object["$type"] = types[r.IntN(len(types))]
	default:
		object[name] = mutate(r, object[name])
	}
	return object
}

var types = []string{
	"pub.layers.defs#span", "pub.layers.defs#fragmentSelector", "pub.layers.defs#objectRef", "org.example.field.notebook#note", "org.example.field.notebook#sketch",
	"org.example.nowhere", "org.example.nowhere#main", "com.atproto.repo.strongRef", "x", "blob",
}

func otherValue(r *rand.Rand, value any) any {
	switch v := value.(type) {
	case string:
		switch r.IntN(6) {
		case 0:
			return v + "\x00"
		case 1:
			return strings.Repeat(v+"x", 1+r.IntN(200))
		case 2:
			return strings.ToValidUTF8(v[:len(v)/2], "")
		case 3:
			list := formatted[sortedKeys(formatted)[r.IntN(len(formatted))]]
			return list[r.IntN(len(list))]
		}
	case int64:
		if r.IntN(3) > 0 {
			return []int64{-1, 0, 1, 1000, 1001, v + 1, v - 1, anyInteger(r)}[r.IntN(8)]
		}
	case []any:
		if r.IntN(2) == 0 && len(v) > 0 {
			for len(v) < 70 {
				v = append(v, v[0])
			}
			return v[:r.IntN(len(v))]
		}
	}
	return anyValue(r, 1)
}
