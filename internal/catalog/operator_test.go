package catalog_test

import (
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
)

// An operator's directory: a record type of its own with all that the lexicon
// language has, its queries, and a definition of the protocol's that it uses.
var operatorLexicons = map[string]string{
	"com.atproto.repo.strongRef": `{"lexicon": 1, "id": "com.atproto.repo.strongRef", "description": "A URI with a content-hash fingerprint.", "defs": {"main": {
		"type": "object", "required": ["uri", "cid"], "properties": {
			"uri": {"type": "string", "format": "at-uri"},
			"cid": {"type": "string", "format": "cid"}}}}}`,

	"org.example.field.notebook": `{"lexicon": 1, "id": "org.example.field.notebook", "defs": {
		"main": {"type": "record", "key": "tid", "description": "A field notebook.", "record": {
			"type": "object", "required": ["createdAt", "title"], "nullable": ["mood"], "properties": {
				"title":     {"type": "string", "maxLength": 60, "maxGraphemes": 12, "minLength": 2},
				"createdAt": {"type": "string", "format": "datetime"},
				"mood":      {"type": "string", "enum": ["good", "bad"]},
				"site":      {"type": "ref", "ref": "pub.layers.defs#objectRef"},
				"sites":     {"type": "array", "items": {"type": "ref", "ref": "pub.layers.defs#objectRef"}},
				"tags":      {"type": "array", "minLength": 1, "maxLength": 3, "items": {"type": "string"}},
				"volume":    {"type": "integer", "minimum": 1, "maximum": 99},
				"even":      {"type": "integer", "enum": [2, 4, 6]},
				"volumes":   {"type": "array", "items": {"type": "integer"}},
				"public":    {"type": "boolean"},
				"yes":       {"type": "boolean", "const": true},
				"grid":      {"type": "array", "items": {"type": "array", "maxLength": 4, "items": {"type": "string", "format": "at-uri"}}},
				"cover":     {"type": "blob", "accept": ["image/*"], "maxSize": 1000},
				"checksum":  {"type": "bytes", "minLength": 2, "maxLength": 8},
				"snapshot":  {"type": "cid-link"},
				"extra":     {"type": "unknown"},
				"pinned":    {"type": "ref", "ref": "com.atproto.repo.strongRef"},
				"body":      {"type": "array", "items": {"type": "union", "refs": ["#note", "#sketch", "com.atproto.repo.strongRef"]}},
				"strong":    {"type": "union", "closed": true, "refs": ["com.atproto.repo.strongRef"]},
				"binding":   {"type": "union", "closed": true, "refs": ["#note", "#sketch"]},
				"outline":   {"type": "ref", "ref": "#section", "description": "Its outline."}}}},
		"note":    {"type": "object", "required": ["text"], "properties": {
			"text":  {"type": "string"},
			"about": {"type": "string", "format": "at-uri", "maxLength": 64}}},
		"sketch":  {"type": "object", "properties": {"about": {"type": "string", "format": "at-uri"}, "links": {"type": "array", "items": {"type": "string", "format": "at-uri"}}}},
		"section": {"type": "object", "description": "A part.", "properties": {
			"source":   {"type": "string", "format": "at-uri"},
			"sections": {"type": "array", "items": {"type": "ref", "ref": "#section"}}}},
		"label":   {"type": "string", "maxLength": 10}}}`,

	"org.example.field.getNotebook": `{"lexicon": 1, "id": "org.example.field.getNotebook", "defs": {"main": {
		"type": "query", "description": "One notebook.",
		"parameters": {"type": "params", "required": ["uri"], "properties": {"uri": {"type": "string", "format": "at-uri", "description": "Which."}}},
		"output": {"encoding": "application/json", "schema": {"type": "ref", "ref": "#view"}},
		"errors": [{"name": "RecordNotFound"}]},
		"view": {"type": "object", "required": ["uri", "cid", "value"], "properties": {
			"uri": {"type": "string", "format": "at-uri"}, "cid": {"type": "string", "format": "cid"}, "value": {"type": "ref", "ref": "org.example.field.notebook"}}}}}`,

	"org.example.field.findNotebooks": `{"lexicon": 1, "id": "org.example.field.findNotebooks", "defs": {"main": {
		"type": "query",
		"parameters": {"type": "params", "required": ["tags"], "properties": {
			"repo":    {"type": "string", "format": "at-identifier"},
			"tags":    {"type": "array", "description": "Any of them.", "items": {"type": "string", "maxLength": 40}},
			"site":    {"type": "string", "format": "at-uri"},
			"sites":   {"type": "array", "items": {"type": "string", "format": "at-uri"}},
			"volume":  {"type": "integer", "minimum": 1},
			"volumes": {"type": "integer"},
			"public":  {"type": "boolean", "default": true},
			"limit":   {"type": "integer", "minimum": 1, "maximum": 20, "default": 10},
			"cursor":  {"type": "string"}}},
		"output": {"encoding": "application/json", "schema": {"type": "object", "required": ["found"], "properties": {
			"cursor": {"type": "string"},
			"found":  {"type": "array", "items": {"type": "ref", "ref": "org.example.field.getNotebook#view"}}}}}}}}`,

	"org.example.field.guess": `{"lexicon": 1, "id": "org.example.field.guess", "defs": {"main": {
		"type": "query",
		"parameters": {"type": "params", "properties": {"uri": {"type": "string", "format": "at-uri"}, "mood": {"type": "string"}}},
		"output": {"encoding": "application/json", "schema": {"type": "ref", "ref": "org.example.field.getNotebook#view"}}}}}`,

	"org.example.field.purge": `{"lexicon": 1, "id": "org.example.field.purge", "defs": {"main": {"type": "procedure"}}}`,
}

const notebook syntax.NSID = "org.example.field.notebook"

var snapshot = mustCID("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")

// fullNotebook has every property of the operator's record.
func fullNotebook() map[string]any {
	about := func(name string) string { return "at://did:plc:abc/org.example.place.site/" + name }
	return map[string]any{
		"$type": string(notebook), "title": "Ọ̀rọ̀", "createdAt": "2026-02-03T04:05:06.123456789+01:00", "mood": nil,
		"site":  map[string]any{"recordRef": about("here")},
		"sites": []any{map[string]any{"recordRef": about("s1")}, map[string]any{"localId": map[string]any{"value": "x"}}, map[string]any{"recordRef": about("s1")}},
		"tags":  []any{"b", "a", "b"}, "volume": int64(7), "even": int64(4), "volumes": []any{int64(-3), int64(12)}, "public": false, "yes": true,
		"grid":     []any{[]any{about("a"), about("b")}, []any{}, []any{about("a")}},
		"cover":    atdata.Blob{Ref: snapshot, MimeType: "image/png", Size: 1000},
		"checksum": atdata.Bytes{0, 255}, "snapshot": snapshot,
		"extra":  map[string]any{"not": "at://did:plc:abc/not.a.reference/x", "float": "1.5"},
		"pinned": map[string]any{"uri": about("pin"), "cid": snapshot.String()},
		"body": []any{
			map[string]any{"$type": "org.example.field.notebook#note", "text": "n", "about": about("n1")},
			map[string]any{"$type": "org.example.field.notebook#sketch", "links": []any{about("l1"), about("l2"), about("l1")}},
			map[string]any{"$type": "com.atproto.repo.strongRef", "uri": about("strong"), "cid": snapshot.String()},
			map[string]any{"$type": "org.example.field.unheardOf", "about": about("unread")},
			map[string]any{"$type": "org.example.field.notebook#section", "source": about("unlisted")},
		},
		"binding": map[string]any{"$type": "org.example.field.notebook#sketch", "about": about("bound")},
		"outline": map[string]any{"sections": []any{map[string]any{"source": about("deep"), "sections": []any{map[string]any{"source": about("deeper")}}}}},
		"unnamed": "at://did:plc:abc/not.in.lexicon/x",
	}
}

// A record type more is a lexicon file more: nothing in the code knows this one.
func TestOperatorsRecordType(t *testing.T) {
	t.Parallel()
	c, _ := withOperator(t)
	collection, ok := c.Collection(notebook)
	require.True(t, ok)
	assert.Len(t, c.Collections(), 27)
	assert.Equal(t, "field", collection.Namespace)
	assert.Equal(t, "A field notebook.", collection.Description)
	assert.Equal(t, []catalog.Listing{{
		Query:    "org.example.field.findNotebooks",
		Required: []catalog.Filter{{Name: "tags", Array: true}},
		Optional: []catalog.Filter{{Name: "public"}, {Name: "site", ObjectRef: true}, {Name: "sites", Array: true, ObjectRef: true}, {Name: "volume"}, {Name: "volumes", Array: true}},
	}}, collection.Lists)

	checked, err := check(t, c, fullNotebook())
	require.NoError(t, err)
	assert.Equal(t, map[string]any{
		"tags": []string{"b", "a"}, "site": "at://did:plc:abc/org.example.place.site/here",
		"sites": []string{"at://did:plc:abc/org.example.place.site/s1"}, "volume": "7", "volumes": []string{"-3", "12"}, "public": "false",
	}, checked.Filter)
	assert.Equal(t, "2026-02-03T03:05:06.123456Z", checked.CreatedAt.Format("2006-01-02T15:04:05.999999999Z07:00"))
	assert.ElementsMatch(t, refs(
		"site.recordRef here", "sites[].recordRef s1", "grid[][] a", "grid[][] b", "pinned.uri pin",
		"body[].about n1", "body[].links[] l1", "body[].links[] l2", "body[].uri strong", "body[].source unlisted",
		"binding.about bound", "outline.sections[].source deep", "outline.sections[].sections[].source deeper",
	), checked.Refs)
}

// refs are references written as "path name" of a site.
func refs(list ...string) []record.Ref {
	var out []record.Ref
	for _, item := range list {
		at := slices.Index([]byte(item), ' ')
		out = append(out, record.Ref{Path: item[:at], Target: syntax.ATURI("at://did:plc:abc/org.example.place.site/" + item[at+1:])})
	}
	return out
}

func TestOperatorsQueries(t *testing.T) {
	t.Parallel()
	c, _ := withOperator(t)
	assert.Len(t, c.Queries(), 59, "the procedure is none")
	byName := map[syntax.NSID]*catalog.Query{}
	for _, q := range c.Queries() {
		byName[q.NSID] = q
	}
	get := byName["org.example.field.getNotebook"]
	assert.Equal(t, catalog.Get, get.Kind)
	assert.Equal(t, notebook, get.Collection)
	assert.Equal(t, "One notebook.", get.Description)
	assert.Equal(t, "Which.", get.Params[0].Description)
	assert.Equal(t, catalog.Other, byName["org.example.field.guess"].Kind, "it answers a record without being told which")
	find := byName["org.example.field.findNotebooks"]
	assert.Equal(t, catalog.List, find.Kind)
	assert.Equal(t, "found", find.Items)
	forty, one := 40, int64(1)
	assert.Contains(t, find.Params, catalog.Param{Name: "tags", Type: catalog.String, Repeated: true, Required: true, MaxLength: &forty, Description: "Any of them.", Filter: "tags"})
	assert.Contains(t, find.Params, catalog.Param{Name: "volume", Type: catalog.Integer, Minimum: &one, Filter: "volume"})
	assert.Contains(t, find.Params, catalog.Param{Name: "public", Type: catalog.Boolean, Default: true, Filter: "public"})
	assert.Contains(t, find.Params, catalog.Param{Name: "repo", Type: catalog.String, Format: "at-identifier", Repo: true})
}

func TestOperatorsSchema(t *testing.T) {
	t.Parallel()
	c, _ := withOperator(t)
	collection, _ := c.Collection(notebook)
	outline := collection.Schema.Property("outline")
	assert.Equal(t, "Its outline.", outline.Description)
	assert.Equal(t, "A part.", outline.Schema.Description)
	assert.Same(t, outline.Schema, outline.Schema.Property("sections").Schema.Items, "recursion is a cycle, not a copy")
	assert.True(t, collection.Schema.Property("mood").Nullable)
	assert.Equal(t, []any{"good", "bad"}, collection.Schema.Property("mood").Schema.Enum)
	assert.Equal(t, []any{2, 4, 6}, collection.Schema.Property("even").Schema.Enum)
	assert.Equal(t, true, collection.Schema.Property("yes").Schema.Const)
	assert.Equal(t, int64(1000), *collection.Schema.Property("cover").Schema.MaxSize)
	assert.True(t, collection.Schema.Property("binding").Schema.Closed)
}

// What an operator can get wrong is said at once, and says what is wrong.
func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	list := func(param string) string {
		return `{"lexicon": 1, "id": "org.example.listCorpora", "defs": {"main": {"type": "query",
			"parameters": {"type": "params", "properties": {"limit": {"type": "integer"}, "cursor": {"type": "string"}, "` + param + `": {"type": "string"}}},
			"output": {"encoding": "application/json", "schema": {"type": "object", "properties": {"records": {"type": "array", "items": {"type": "object", "properties": {
				"uri": {"type": "string"}, "cid": {"type": "string"}, "value": {"type": "ref", "ref": "pub.layers.corpus.corpus"}}}}}}}}}}`
	}
	object := func(properties string) string {
		return `{"lexicon": 1, "id": "org.example.defs", "defs": {"a": {"type": "object", "properties": {` + properties + `}}}}`
	}
	for name, test := range map[string]struct{ file, want string }{
		"no lexicon at all":         {`{"name": "package"}`, "unsupported lexicon language version"},
		"no JSON":                   {`{`, "parse lexicon"},
		"unknown type":              {object(`"x": {"type": "number"}`), "unexpected schema type: number"},
		"wrong structure":           {object(`"x": {"type": "string", "minLength": 2, "maxLength": 1}`), "max < min"},
		"reference to nowhere":      {object(`"x": {"type": "ref", "ref": "org.example.nowhere#y"}`), "no loaded lexicon defines org.example.nowhere#y"},
		"union member nowhere":      {object(`"x": {"type": "union", "refs": ["#nowhere"]}`), "no loaded lexicon defines org.example.defs#nowhere"},
		"filter on no property":     {list("colour"), `parameter colour: pub.layers.corpus.corpus has no property "colour" to filter on`},
		"filter on an object":       {list("metadata"), "parameter metadata"},
		"another pub.layers record": {`{"lexicon": 1, "id": "pub.layers.corpus.corpus", "defs": {"main": {"type": "record", "key": "tid", "record": {"type": "object", "properties": {}}}}}`, "lexicon pub.layers.corpus.corpus differs from the one in embedded lexicons"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := catalog.Load(fstest.MapFS{"a/file.json": {Data: []byte(test.file)}})
			require.Error(t, err)
			assert.Contains(t, err.Error(), test.want)
			assert.Contains(t, err.Error(), "a/file.json")
			assert.Contains(t, err.Error(), "lexicon directory 1")
		})
	}
	_, err := catalog.Load(fstest.MapFS{"README.md": {Data: []byte("no lexicon")}})
	assert.ErrorContains(t, err, "no .json file found")
	_, err = catalog.Load(os.DirFS("does/not/exist"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// The same lexicon may be there twice, laid out differently.
func TestLoadTakesTheSameLexiconAgain(t *testing.T) {
	t.Parallel()
	strongRef := operatorLexicons["com.atproto.repo.strongRef"]
	c, err := catalog.Load(
		fstest.MapFS{"a.json": {Data: []byte(strongRef)}},
		fstest.MapFS{"b.json": {Data: []byte("\n" + strongRef + "\n")}},
	)
	require.NoError(t, err)
	assert.Len(t, c.Collections(), 26)
}
