package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

func TestEveryTypeHasANameOfItsOwn(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load()
	require.NoError(t, err)
	names := map[string]string{}
	for _, rt := range recordTypes(c) {
		names[string(rt.collection.NSID)] = rt.name
	}
	require.Len(t, names, 26)
	for nsid, want := range map[string]string{
		"pub.layers.expression.expression":      "expressions",
		"pub.layers.corpus.corpus":              "corpora",
		"pub.layers.ontology.ontology":          "ontologies",
		"pub.layers.ontology.typeDef":           "types",
		"pub.layers.judgment.experimentDef":     "experiments",
		"pub.layers.annotation.annotationLayer": "annotation-layers",
		"pub.layers.changelog.entry":            "changelog-entries",
		"pub.layers.resource.entry":             "resource-entries",
		"pub.layers.media.media":                "media",
		"pub.layers.eprint.eprint":              "eprints",
	} {
		require.Equal(t, want, names[nsid], nsid)
	}
}

// Every list of every type, with every filter and pairs of them, against what can
// be worked out of the records themselves; in pages of every kind.
func TestListsAgreeWithBruteForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, rt := range w.rest.types {
		w.fill(t, rt.collection, 24)
	}
	for _, rt := range w.rest.types {
		questions := []url.Values{{}, {"repo": {string(bob)}}, {"repo": {"alice.test"}}}
		for _, p := range rt.filters() {
			if p.Filter == "" {
				continue
			}
			f := filterOf(t, rt.collection, p.Filter)
			for _, value := range valuesOf(rt.collection, f) {
				questions = append(questions, url.Values{p.Name: {value}}, url.Values{p.Name: {value}, "repo": {string(alice)}})
			}
		}
		for _, params := range questions {
			require.Equal(t, w.expect(t, rt, params), w.walk(t, rt, params, 7), "%s?%s", rt.name, params.Encode())
		}
		require.Equal(t, w.walk(t, rt, url.Values{}, 100), w.walk(t, rt, url.Values{}, 2), rt.name)
	}
}

func filterOf(t *testing.T, c *catalog.Collection, name string) catalog.Filter {
	t.Helper()
	i := slices.IndexFunc(filters(c), func(f catalog.Filter) bool { return f.Name == name })
	require.GreaterOrEqual(t, i, 0)
	return filters(c)[i]
}

func (w *world) expect(t *testing.T, rt *recordType, params url.Values) []string {
	t.Helper()
	uris := []string{}
members:
	for _, m := range w.members[rt.collection.NSID] {
		for _, p := range rt.filters() {
			values := params[p.Name]
			switch {
			case values == nil:
			case p.Repo:
				if did := strings.Replace(values[0], "alice.test", string(alice), 1); did != string(m.key.DID) {
					continue members
				}
			case !slices.ContainsFunc(values, func(v string) bool { return m.has(filterOf(t, rt.collection, p.Filter), v) }):
				continue members
			}
		}
		uris = append(uris, m.key.String())
	}
	return uris
}

func (w *world) walk(t *testing.T, rt *recordType, params url.Values, limit int) []string {
	t.Helper()
	asked := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, values := range params {
		asked[name] = values
	}
	all := []string{}
	for {
		var p page
		w.get(t, "/"+rt.name, asked, &p)
		all = append(all, urisOf(p.Records)...)
		if p.Cursor == "" {
			return all
		}
		require.Len(t, p.Records, limit, "a page that is not the last is full")
		asked.Set("cursor", p.Cursor)
	}
}

func TestEveryTypeIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, rt := range w.rest.types {
		m := w.put(t, alice, rt.collection.NSID, "one", nil)
		var got one
		w.get(t, w.at(m.key), nil, &got)
		require.Equal(t, string(m.json), string(got.Value), "the value is as it was written")
		require.Equal(t, m.cid, got.CID)
		require.Equal(t, m.key.URI(), got.URI)

		byHandle := "/" + rt.name + "/" + url.PathEscape(strings.Replace(m.key.String(), string(alice), "alice.test", 1))
		w.get(t, byHandle, nil, &got)
		require.Equal(t, m.key.URI(), got.URI)

		first := w.ask(t, Prefix+w.at(m.key))
		require.Equal(t, `W/"`+string(m.cid)+`"`, first.header.Get("ETag"))
		again := w.ask(t, Prefix+w.at(m.key), "If-None-Match", first.header.Get("ETag"))
		require.Equal(t, http.StatusNotModified, again.status)
		require.Empty(t, again.body)

		missing := m.key
		missing.Rkey = "other"
		w.refused(t, w.at(missing), http.StatusNotFound, "RecordNotFound")
	}
	w.setActive(t, alice, false)
	for _, rt := range w.rest.types {
		w.refused(t, w.at(w.members[rt.collection.NSID][0].key), http.StatusNotFound, "RecordNotFound")
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for target, says := range map[string]string{
		"/expressions?limit=0":                "from 1 to 100",
		"/expressions?limit=101":              "from 1 to 100",
		"/expressions?limit=x":                "an integer",
		"/expressions?limt=1":                 "expected cursor, expand",
		"/expressions?limit=1&limit=2":        "more than once",
		"/expressions?cursor=%ff":             "UTF-8",
		"/expressions?cursor=abc":             "cursor",
		"/expressions?repo=nobody.test":       "could not resolve",
		"/expressions?repo=%00":               "handle or a DID",
		"/expressions?kind=%zz":               "percent-encoding",
		"/expressions?fields=nothing":         "no property",
		"/expressions?fields=kind.further":    "no property",
		"/expressions/abc":                    "AT-URI",
		"/expressions/at%3A%2F%2Fdid%3Aa%3Ab": "collection and record key",
		"/expressions/" + url.PathEscape(exampleURI("pub.layers.corpus.corpus")):                    "of the collection",
		"/expressions/" + url.PathEscape(exampleURI("pub.layers.expression.expression")) + "?uri=x": "not one of",
		"/expressions/" + url.PathEscape("at://nobody.test/pub.layers.expression.expression/a"):     "could not resolve",
	} {
		require.Contains(t, w.refused(t, target, http.StatusBadRequest, "InvalidRequest"), says, target)
	}
	w.refused(t, "/nothing", http.StatusNotFound, "NotFound")
	w.refused(t, "/expression", http.StatusNotFound, "NotFound")
}

func TestFieldsChooseParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	layer := w.put(t, alice, "pub.layers.annotation.annotationLayer", "one", map[string]any{
		"kind": "token-tag", "annotations": []any{
			map[string]any{"uuid": map[string]any{"value": "a"}, "label": "NOUN", "confidence": int64(1000)},
			map[string]any{"uuid": map[string]any{"value": "b"}, "label": "V\u0000RB"},
		},
	})
	for fields, want := range map[string]string{
		"kind": `{"kind":"token-tag"}`,
		"annotations.label,annotations.confidence": `{"annotations":[{"label":"NOUN","confidence":1000},{"label":"V\u0000RB"}]}`,
		"annotations[].uuid.value,kind":            `{"kind":"token-tag","annotations":[{"uuid":{"value":"a"}},{"uuid":{"value":"b"}}]}`,
		"subkind":                                  `{}`,
		"$type":                                    `{"$type":"pub.layers.annotation.annotationLayer"}`,
	} {
		var got one
		w.get(t, w.at(layer.key), url.Values{"fields": {fields}}, &got)
		require.JSONEq(t, want, string(got.Value), fields)
	}
	var listed page
	w.get(t, "/annotation-layers", url.Values{"fields": {"kind", "annotations.label"}}, &listed)
	require.JSONEq(t, `{"kind":"token-tag","annotations":[{"label":"NOUN"},{"label":"V\u0000RB"}]}`, string(listed.Records[0].Value))
}
