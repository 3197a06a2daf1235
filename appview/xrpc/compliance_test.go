package xrpc

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/lexicons"
)

// TestCompliance puts records of every type into PostgreSQL and asks every get
// and list query of the lexicons for them. It goes by the catalog: a further
// record type with its queries is tested as soon as its lexicons are there.
func TestCompliance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := map[syntax.NSID]bool{}
	listed := map[syntax.NSID]bool{}
	t.Run("queries", func(t *testing.T) {
		for _, q := range w.catalog.Queries() {
			switch q.Kind {
			case catalog.Get:
				got[q.Collection] = true
				t.Run(string(q.NSID), func(t *testing.T) { t.Parallel(); w.testGet(t, q) })
			case catalog.List:
				listed[q.Collection] = true
				t.Run(string(q.NSID), func(t *testing.T) { t.Parallel(); w.testList(t, q) })
			}
		}
	})
	for _, c := range w.catalog.Collections() {
		require.True(t, got[c.NSID], "no get query for %s", c.NSID)
		require.True(t, listed[c.NSID], "no list query for %s", c.NSID)
	}
	require.GreaterOrEqual(t, len(got), 26)
}

// testGet asks for every record of the collection, and for some that are not there.
func (w *world) testGet(t *testing.T, q *catalog.Query) {
	path := "/xrpc/" + string(q.NSID) + "?uri="
	valid := outputCheck(t, q)
	for i := range w.members[q.Collection] {
		m := &w.members[q.Collection][i]
		res := ask(t, w.service, "GET", path+url.QueryEscape(m.key.String()))
		require.Equal(t, 200, res.Code, res.Body)
		require.Equal(t, fmt.Sprint(res.Body.Len()), res.Header().Get("Content-Length"))
		require.Equal(t, "application/json", res.Header().Get("Content-Type"))
		var v view
		require.NoError(t, json.Unmarshal(res.Body.Bytes(), &v))
		sameValue(t, m, v)
		valid(res.Body.Bytes())
	}
	known := w.members[q.Collection][0].key
	for name, uri := range map[string]string{
		"no such rkey": "at://" + string(known.DID) + "/" + string(known.Collection) + "/none",
		"no such repo": "at://did:plc:zzzzzzzzzzzzzzzzzzzzzzzz/" + known.Path(),
	} {
		message := refused(t, ask(t, w.service, "GET", path+url.QueryEscape(uri)), 400, "RecordNotFound")
		require.Contains(t, message, uri, name)
	}
	for name, uri := range map[string]string{
		"another collection": "at://" + string(known.DID) + "/com.example.thing/a",
		"no record key":      "at://" + string(known.DID) + "/" + string(known.Collection),
		"a repository alone": "at://" + string(known.DID),
	} {
		message := refused(t, ask(t, w.service, "GET", path+url.QueryEscape(uri)), 400, "InvalidRequest")
		require.Contains(t, message, `"uri"`, name)
		if name == "another collection" {
			require.Contains(t, message, string(q.Collection))
		}
	}
}

// testList asks with every combination of a parameter and a value, and walks
// pages of several sizes.
func (w *world) testList(t *testing.T, q *catalog.Query) {
	valid := outputCheck(t, q)
	required := w.requiredParams(q)
	all := w.expect(q, required)
	require.Greater(t, len(all), 100, "too few records for a second page of 100")

	byURI := map[string]*member{}
	for i := range w.members[q.Collection] {
		m := &w.members[q.Collection][i]
		byURI[m.key.String()] = m
	}
	for _, limit := range []int{1, 7, 50, 100} {
		views := w.walk(t, q, required, limit)
		require.Equal(t, all, uris(views), "limit %d: other records, or in another order", limit)
		for _, v := range views {
			sameValue(t, byURI[v.URI], v)
		}
	}
	first := w.list(t, q, required)
	require.Len(t, first.items, 50, "the default limit")
	res := ask(t, w.service, "GET", "/xrpc/"+string(q.NSID)+"?"+required.Encode())
	valid(res.Body.Bytes())

	for _, p := range q.Params {
		if p.Filter != "" || p.Repo {
			w.testFilter(t, q, p, required)
		}
	}
}

// testFilter asks with each value that the parameter's property has somewhere,
// with one that none has, and with several at once where that is allowed.
func (w *world) testFilter(t *testing.T, q *catalog.Query, p catalog.Param, required url.Values) {
	c, _ := w.catalog.Collection(q.Collection)
	values := []string{string(repos[0]), string(repos[1]), string(repos[2])}
	nowhere := "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"
	if !p.Repo {
		f := filtersOf(c)[slices.IndexFunc(filtersOf(c), func(f listFilter) bool { return f.Name == p.Filter })]
		values = f.values(c.Schema.Property(p.Filter))
		nowhere = "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/com.example.nowhere/x"
		if p.MaxLength != nil && *p.MaxLength < len(nowhere) {
			nowhere = "nowhere"
		}
	}
	answers := map[string]bool{}
	asked := func(values ...string) []string {
		params := cloneParams(required)
		params[p.Name] = values
		want := w.expect(q, params)
		require.Equal(t, want, uris(w.walk(t, q, params, 100)), "%s=%q", p.Name, values)
		answers[fmt.Sprint(want)] = true
		return want
	}
	for _, v := range values {
		require.NotEmpty(t, asked(v), "%s=%q finds nothing, so it proves nothing", p.Name, v)
	}
	require.Empty(t, asked(nowhere))
	require.Len(t, answers, len(values)+1, "%s: two values with the same answer", p.Name)
	if p.Repeated {
		require.Greater(t, len(asked(values[1], values[2])), len(asked(values[2])), "any match")
		asked(values[1], nowhere)
		asked(values[1], values[1])
	}
}

// requiredParams gives the required parameters the value that most records have.
func (w *world) requiredParams(q *catalog.Query) url.Values {
	c, _ := w.catalog.Collection(q.Collection)
	params := url.Values{}
	for _, p := range q.Params {
		switch {
		case !p.Required:
		case p.Repo:
			params.Set(p.Name, string(repos[0]))
		default:
			f := filtersOf(c)[slices.IndexFunc(filtersOf(c), func(f listFilter) bool { return f.Name == p.Filter })]
			params.Set(p.Name, f.values(c.Schema.Property(p.Filter))[0])
		}
	}
	return params
}

// outputCheck returns a check of answers against the query's output schema, made
// with indigo's validator and the lexicon files alone. That validator takes
// records only: so the output is dressed up as one, and the records in it are
// checked by themselves.
func outputCheck(t *testing.T, q *catalog.Query) func(body []byte) {
	t.Helper()
	schemas := lexicon.NewBaseCatalog()
	require.NoError(t, schemas.LoadEmbedFS(lexicons.FS))
	const id = "com.example.output"
	file := lexiconFile(t, q.NSID)
	file["id"] = id
	defs := file["defs"].(map[string]any)
	output := defs["main"].(map[string]any)["output"].(map[string]any)["schema"]
	defs["main"] = map[string]any{"type": "record", "key": "any", "record": output}
	raw, err := json.Marshal(withoutRef(defs, string(q.Collection)+"#main"))
	require.NoError(t, err)
	file["defs"] = json.RawMessage(raw)
	raw, err = json.Marshal(file)
	require.NoError(t, err)
	var parsed lexicon.SchemaFile
	require.NoError(t, json.Unmarshal(raw, &parsed))
	require.NoError(t, schemas.AddSchemaFile(parsed))

	return func(body []byte) {
		t.Helper()
		data, err := atdata.UnmarshalJSON(body)
		require.NoError(t, err)
		require.NotContains(t, data, "$type", "an answer is not an object of its own type")
		data["$type"] = id
		require.NoError(t, lexicon.ValidateRecord(schemas, data, id, 0), "%.2000s", body)
		items, _ := data[q.Items].([]any)
		if q.Kind == catalog.Get {
			items = []any{data}
		}
		for _, item := range items {
			require.NoError(t, lexicon.ValidateRecord(schemas, item.(map[string]any)["value"], string(q.Collection), 0), "%.2000s", body)
		}
	}
}

// withoutRef has "unknown" where a lexicon refers to a definition.
func withoutRef(node any, ref string) any {
	switch node := node.(type) {
	case map[string]any:
		if node["type"] == "ref" && node["ref"] == ref {
			return map[string]any{"type": "unknown"}
		}
		for key, value := range node {
			node[key] = withoutRef(value, ref)
		}
	case []any:
		for i, value := range node {
			node[i] = withoutRef(value, ref)
		}
	}
	return node
}

// lexiconFile finds the lexicon of an NSID among the embedded files.
func lexiconFile(t *testing.T, nsid syntax.NSID) map[string]any {
	t.Helper()
	var found map[string]any
	require.NoError(t, fs.WalkDir(lexicons.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(lexicons.FS, path)
		if err != nil {
			return err
		}
		var file map[string]any
		if err := json.Unmarshal(raw, &file); err != nil {
			return err
		}
		if file["id"] == string(nsid) {
			found = file
		}
		return nil
	}))
	require.NotNil(t, found, "no lexicon %s", nsid)
	return found
}
