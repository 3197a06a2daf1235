package catalog_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
)

const membership = "pub.layers.corpus.membership"

// member is a valid record of the membership collection, with some properties changed.
func member(changes map[string]any) map[string]any {
	value := map[string]any{
		"$type": membership, "createdAt": "2026-01-02T03:04:05.678Z", "split": "train",
		"corpusRef":     "at://did:plc:abc/pub.layers.corpus.corpus/c",
		"expressionRef": "at://name.example/pub.layers.expression.expression/e",
	}
	maps.Copy(value, changes)
	return value
}

func TestCheck(t *testing.T) {
	t.Parallel()
	checked, err := check(t, load(t), member(nil))
	require.NoError(t, err)
	assert.Equal(t, `{"$type":"pub.layers.corpus.membership","split":"train","corpusRef":"at://did:plc:abc/pub.layers.corpus.corpus/c","createdAt":"2026-01-02T03:04:05.678Z","expressionRef":"at://name.example/pub.layers.expression.expression/e"}`, string(checked.JSON))
	assert.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC), checked.CreatedAt)
	assert.Equal(t, []record.Ref{
		{Path: "corpusRef", Target: "at://did:plc:abc/pub.layers.corpus.corpus/c"},
		{Path: "expressionRef", Target: "at://name.example/pub.layers.expression.expression/e"},
	}, checked.Refs)
	assert.Equal(t, map[string]any{"corpusRef": "at://did:plc:abc/pub.layers.corpus.corpus/c", "split": "train"}, checked.Filter)
}

func TestCheckFilters(t *testing.T) {
	t.Parallel()
	c := load(t)
	long := "at://did:plc:abc/pub.layers.corpus.corpus/" + strings.Repeat("k", 512)
	checked, err := check(t, c, member(map[string]any{"corpusRef": long}))
	require.NoError(t, err)
	assert.Equal(t, record.FilterTerm(long), checked.Filter["corpusRef"])
	assert.NotEqual(t, long, checked.Filter["corpusRef"])

	checked, err = check(t, c, member(map[string]any{"split": "a\x00b"}))
	require.NoError(t, err, "U+0000 is a character like any other")
	assert.Equal(t, record.FilterTerm("a\x00b"), checked.Filter["split"])
	assert.Contains(t, string(checked.JSON), `"split":"a\u0000b"`)

	value := member(nil)
	delete(value, "split")
	checked, err = check(t, c, value)
	require.NoError(t, err)
	assert.NotContains(t, checked.Filter, "split")

	edge, err := check(t, c, map[string]any{
		"$type": "pub.layers.graph.graphEdge", "createdAt": "2026-01-01T00:00:00Z", "edgeType": "x",
		"source": map[string]any{"recordRef": "at://did:plc:abc/a.b.c/s", "not in the lexicon": "x"}, "target": map[string]any{"localId": map[string]any{"value": "x"}},
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"edgeType": "x", "source": "at://did:plc:abc/a.b.c/s"}, edge.Filter)

	entry, err := check(t, c, map[string]any{
		"$type": "pub.layers.changelog.entry", "createdAt": "2026-01-01T00:00:00Z", "summary": "x", "sections": []any{},
		"subject": "at://did:plc:abc/pub.layers.corpus.corpus/c", "subjectCollection": "pub.layers.corpus.corpus",
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"subject": "at://did:plc:abc/pub.layers.corpus.corpus/c", "subjectCollection": "pub.layers.corpus.corpus"}, entry.Filter)
}

// The record's name is checked before its contents, and nothing before its bytes.
func TestCheckName(t *testing.T) {
	t.Parallel()
	c := load(t)
	wrong := member(map[string]any{"$type": "pub.layers.corpus.corpus", "split": int64(1)})
	_, block := encode(t, wrong)
	invalid := refuseBlock(t, c, keyIn(membership), block)
	assert.Equal(t, catalog.Invalid{Path: "$type", Reason: "record is in a collection of another type", Expected: membership, Received: `"pub.layers.corpus.corpus"`}, *invalid)

	untyped := member(nil)
	delete(untyped, "$type")
	_, block = encode(t, untyped)
	assert.Equal(t, "$type", refuseBlock(t, c, keyIn(membership), block).Path)

	_, block = encode(t, member(map[string]any{"$type": membership + "#main"}))
	assert.Equal(t, "$type", refuseBlock(t, c, keyIn(membership), block).Path)

	_, err := c.Check(keyIn("org.example.unknown"), block)
	var reason *catalog.Invalid
	require.Error(t, err)
	assert.NotErrorAs(t, err, &reason)
}

func TestCheckRecordKeys(t *testing.T) {
	t.Parallel()
	c := load(t)
	key, block := encode(t, member(nil))
	for _, rkey := range []string{
		"3l6oveex3ii2l", "self", "a", "0", "_", "~", "...", "a:b", "-", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-", strings.Repeat("k", 512),
	} {
		key.Rkey = syntax.RecordKey(rkey)
		_, err := c.Check(key, block)
		assert.NoError(t, err, rkey)
	}
	for _, rkey := range []string{"", ".", "..", "a/b", "a b", "é", "a\x00", strings.Repeat("k", 513), "%20", "a@b", "(", "#"} {
		key.Rkey = syntax.RecordKey(rkey)
		assert.Equal(t, "record key out of syntax", refuseBlock(t, c, key, block).Reason, rkey)
	}
}

func TestCreatedAt(t *testing.T) {
	t.Parallel()
	c := loose(t)
	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	first := time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	for text, want := range map[any]time.Time{
		"2026-01-02T03:04:05Z":                       time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.1234567Z":               time.Date(2026, 1, 2, 3, 4, 5, 123_456_000, time.UTC),
		"2026-01-02T03:04:05+05:30":                  time.Date(2026, 1, 1, 21, 34, 5, 0, time.UTC),
		"9999-12-31T23:59:59.9999999Z":               last,
		"9999-12-31T23:59:59-23:59":                  last,
		"0000-01-01T00:00:00Z":                       first,
		"0001-01-01T00:00:00Z":                       first,
		"0000-12-31T23:59:59Z":                       first,
		"1969-07-20T20:17:40Z":                       time.Date(1969, 7, 20, 20, 17, 40, 0, time.UTC),
		"0000-01-01T00:00:00+23:59":                  {},
		"2026-01-02T03:04:05":                        {},
		"2026-02-30T00:00:00Z":                       {},
		"yesterday":                                  {},
		"":                                           {},
		int64(5):                                     {},
		"2026-01-02T03:04:05.123456789012345678901Z": {},
	} {
		checked, err := check(t, c, map[string]any{"$type": string(anything), "createdAt": text})
		require.NoError(t, err)
		assert.Equal(t, want, checked.CreatedAt, "%v", text)
	}
	for _, outer := range []time.Time{first, last} {
		assert.False(t, outer.IsZero())
		text, err := outer.MarshalJSON()
		require.NoError(t, err)
		assert.NotEmpty(t, text)
	}
	assert.Equal(t, "createdAt", refuse(t, load(t), member(map[string]any{"createdAt": "yesterday"})).Path)
}

// The first breach is named by its path, and by what was expected and received.
func TestBreaches(t *testing.T) {
	t.Parallel()
	c, _ := withOperator(t)
	note := func(changes map[string]any) map[string]any {
		value := map[string]any{"$type": "org.example.field.notebook#note", "text": "x"}
		maps.Copy(value, changes)
		return value
	}
	strongRef := map[string]any{"$type": "com.atproto.repo.strongRef", "uri": "at://did:plc:abc/a.b.c/d", "cid": "x"}
	deep := map[string]any{"sections": []any{map[string]any{}, map[string]any{"sections": []any{map[string]any{"source": "x"}}}}}
	for name, test := range map[string]struct {
		property string
		value    any
		want     catalog.Invalid
	}{
		"wrong type":            {"title", int64(5), catalog.Invalid{Path: "title", Reason: "wrong type", Expected: "a string, 2 to 60 bytes, at most 12 graphemes", Received: "5"}},
		"null":                  {"title", nil, catalog.Invalid{Path: "title", Reason: "wrong type", Expected: "a string, 2 to 60 bytes, at most 12 graphemes", Received: "null"}},
		"too long":              {"title", strings.Repeat("é", 31), catalog.Invalid{Path: "title", Reason: "length out of bounds", Expected: "a string, 2 to 60 bytes, at most 12 graphemes", Received: `"` + strings.Repeat(`\u00e9`, 31) + `"`}},
		"too many graphemes":    {"title", "1234567890abc", catalog.Invalid{Path: "title", Reason: "length out of bounds", Expected: "a string, 2 to 60 bytes, at most 12 graphemes", Received: `"1234567890abc"`}},
		"too long to show":      {"title", strings.Repeat("言", 400_000/3), catalog.Invalid{Path: "title", Reason: "length out of bounds", Expected: "a string, 2 to 60 bytes, at most 12 graphemes", Received: `"` + strings.Repeat(`\u8a00`, 26) + `"... (399999 bytes)`}},
		"NUL in a date":         {"createdAt", "\x00", catalog.Invalid{Path: "createdAt", Reason: "not of format datetime", Expected: "a string of format datetime", Received: `"\x00"`}},
		"not in enumeration":    {"mood", "middling", catalog.Invalid{Path: "mood", Reason: "not a value allowed", Expected: "a string, one of good, bad", Received: `"middling"`}},
		"integer out of bounds": {"volume", int64(100), catalog.Invalid{Path: "volume", Reason: "number out of bounds", Expected: "an integer, 1 to 99", Received: "100"}},
		"integer not in list":   {"even", int64(3), catalog.Invalid{Path: "even", Reason: "not a value allowed", Expected: "an integer, one of 2, 4, 6", Received: "3"}},
		"not the constant":      {"yes", false, catalog.Invalid{Path: "yes", Reason: "not a value allowed", Expected: "a boolean, true", Received: "false"}},
		"not a boolean":         {"public", "true", catalog.Invalid{Path: "public", Reason: "wrong type", Expected: "a boolean", Received: `"true"`}},
		"too few":               {"tags", []any{}, catalog.Invalid{Path: "tags", Reason: "length out of bounds", Expected: "an array, 1 to 3 elements", Received: "an array of 0"}},
		"element":               {"tags", []any{"a", map[string]any{}}, catalog.Invalid{Path: "tags[1]", Reason: "wrong type", Expected: "a string", Received: "an object of 0 properties"}},
		"nested element":        {"grid", []any{[]any{}, []any{"at://did:plc:abc", "at:"}}, catalog.Invalid{Path: "grid[1][1]", Reason: "not of format at-uri", Expected: "a string of format at-uri", Received: `"at:"`}},
		"bytes":                 {"checksum", atdata.Bytes{1}, catalog.Invalid{Path: "checksum", Reason: "length out of bounds", Expected: "bytes, 2 to 8 bytes", Received: "1 bytes"}},
		"no link":               {"snapshot", snapshot.String(), catalog.Invalid{Path: "snapshot", Reason: "wrong type", Expected: "a link to a CID", Received: `"` + snapshot.String() + `"`}},
		"blob too large":        {"cover", atdata.Blob{Ref: snapshot, MimeType: "image/png", Size: 1001}, catalog.Invalid{Path: "cover", Reason: "blob not acceptable", Expected: "a blob of at most 1000 bytes of type image/*", Received: `"image/png" of 1001 bytes`}},
		"blob of another type":  {"cover", atdata.Blob{Ref: snapshot, MimeType: "text/html\x00", Size: 1}, catalog.Invalid{Path: "cover", Reason: "blob not acceptable", Expected: "a blob of at most 1000 bytes of type image/*", Received: `"text/html\x00" of 1 bytes`}},
		"no blob":               {"cover", map[string]any{"size": int64(1)}, catalog.Invalid{Path: "cover", Reason: "wrong type", Expected: "a blob of at most 1000 bytes of type image/*", Received: "an object of 1 properties"}},
		"blob for an object":    {"outline", atdata.Blob{Ref: snapshot, MimeType: "x", Size: 1}, catalog.Invalid{Path: "outline", Reason: "wrong type", Expected: "an object", Received: `an object of type "blob"`}},
		"blob for anything":     {"extra", atdata.Blob{Ref: snapshot, MimeType: "x", Size: 1}, catalog.Invalid{Path: "extra", Reason: "wrong type", Expected: "an object", Received: `an object of type "blob"`}},
		"union without type":    {"body", []any{map[string]any{}}, catalog.Invalid{Path: "body[0]", Reason: "does not say which member of the union it is", Expected: "an object with $type org.example.field.notebook#note, org.example.field.notebook#sketch, com.atproto.repo.strongRef", Received: "an object of 0 properties"}},
		"union of a string":     {"body", []any{note(nil), "x"}, catalog.Invalid{Path: "body[1]", Reason: "wrong type", Expected: "an object with $type org.example.field.notebook#note, org.example.field.notebook#sketch, com.atproto.repo.strongRef", Received: `"x"`}},
		"inside a union":        {"body", []any{note(map[string]any{"about": "x"})}, catalog.Invalid{Path: "body[0].about", Reason: "not of format at-uri", Expected: "a string of format at-uri, at most 64 bytes", Received: `"x"`}},
		"strong reference":      {"body", []any{note(nil), strongRef}, catalog.Invalid{Path: "body[1].cid", Reason: "not of format cid", Expected: "a string of format cid", Received: `"x"`}},
		"closed union":          {"binding", map[string]any{"$type": "org.example.field.other"}, catalog.Invalid{Path: "binding", Reason: "not a member of the closed union", Expected: "an object with $type org.example.field.notebook#note, org.example.field.notebook#sketch", Received: `an object of type "org.example.field.other"`}},
		"missing inside":        {"binding", map[string]any{"$type": "org.example.field.notebook#note"}, catalog.Invalid{Path: "binding.text", Reason: "required property missing", Expected: "a string", Received: "nothing"}},
		"recursion":             {"outline", deep, catalog.Invalid{Path: "outline.sections[1].sections[0].source", Reason: "not of format at-uri", Expected: "a string of format at-uri", Received: `"x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := map[string]any{"$type": string(notebook), "title": "ab", "createdAt": "2026-01-01T00:00:00Z"}
			value[test.property] = test.value
			invalid := refuse(t, c, value)
			assert.Equal(t, test.want, *invalid)
			assert.NotContains(t, invalid.Error(), "\x00")
		})
	}
	invalid := refuse(t, c, map[string]any{"$type": string(notebook)})
	assert.Equal(t, "invalid record: createdAt: required property missing; expected a string of format datetime; received nothing", invalid.Error())
}

// Names that a record makes up are shown safely, however odd they are.
func TestPathsAreSafe(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a-b_$1": "a-b_$1", "a.b": `["a.b"]`, "": `[""]`, "nul\x00": `["nul\x00"]`, "é]": `["\u00e9]"]`, strings.Repeat("k", 70): `["` + strings.Repeat("k", 64) + `"...]`,
	} {
		_, block := encode(t, map[string]any{"$type": string(anything), name: map[string]any{"x": 1.5}})
		assert.Equal(t, want+".x", refuseBlock(t, loose(t), keyIn(anything), block).Path)
	}
}

func TestSameReferenceUnderAnotherRuleIsChecked(t *testing.T) {
	t.Parallel()
	c, _ := withOperator(t)
	long := "at://" + string(author) + "/pub.layers.corpus.corpus/3l6oveex3ii2l"
	value := map[string]any{"$type": string(notebook), "title": "ab", "createdAt": "2026-01-01T00:00:00Z", "body": []any{
		map[string]any{"$type": "org.example.field.notebook#sketch", "about": long},
	}}
	checked, err := check(t, c, value)
	require.NoError(t, err)
	require.Len(t, checked.Refs, 1)
	value["body"] = append(value["body"].([]any), map[string]any{"$type": "org.example.field.notebook#note", "text": "x", "about": long})
	assert.Equal(t, "body[1].about", refuse(t, c, value).Path, "a note's is shorter than a sketch's may be")
}
