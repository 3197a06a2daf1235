package xrpc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
)

const (
	corpora     = syntax.NSID("pub.layers.corpus.corpus")
	getCorpus   = "/xrpc/pub.layers.corpus.getCorpus?uri="
	listCorpora = "/xrpc/pub.layers.corpus.listCorpora?"
)

// query finds a query of the world's catalog.
func (w *world) query(t *testing.T, nsid syntax.NSID) *catalog.Query {
	t.Helper()
	all := w.catalog.Queries()
	i := slices.IndexFunc(all, func(q *catalog.Query) bool { return q.NSID == nsid })
	require.GreaterOrEqual(t, i, 0, nsid)
	return all[i]
}

// corpus makes a record of the collection corpora, created so many seconds into 2025.
func corpus(did syntax.DID, rkey syntax.RecordKey, second int, given map[string]any) member {
	at := time.Date(2025, 1, 1, 0, 0, second, 0, time.UTC).Format(time.RFC3339)
	return member{
		key:  record.Key{DID: did, Collection: corpora, Rkey: rkey},
		data: fixture.New(1).Record(corpora, map[string]any{"createdAt": at}, given),
	}
}

func TestMethodsThatAreNotThere(t *testing.T) {
	t.Parallel()
	h := serve(New(loadCatalog(t), &empty{}, nil))
	for path, name := range map[string]string{
		"pub.layers.integration.applyLens?uri=at://" + someDID + "/a.b.c/d": "applyLens",
		"pub.layers.integration.applyLens":                                  "applyLens",
		"com.example.doThing":                                               "com.example.doThing",
		"pub.layers.corpus.corpus":                                          "pub.layers.corpus.corpus",
		"pub.layers.corpus.getcorpus":                                       "pub.layers.corpus.getcorpus",
	} {
		require.Contains(t, refused(t, ask(t, h, "GET", "/xrpc/"+path), 501, "MethodNotImplemented"), name)
	}
	refused(t, ask(t, h, "POST", "/xrpc/com.example.doThing"), 501, "MethodNotImplemented")
	for _, path := range []string{"x", "a.b", "_unknown", "pub.layers.corpus.getCorpus%20", "%ff", "*"} {
		refused(t, ask(t, h, "GET", "/xrpc/"+path), 400, "InvalidRequest")
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		res := ask(t, h, method, getCorpus+"at://"+someDID+"/pub.layers.corpus.corpus/a")
		require.Contains(t, refused(t, res, 405, "InvalidRequest"), "GET")
		require.Contains(t, res.Header().Get("Allow"), "GET")
	}
}

func TestHandlesNameRepositories(t *testing.T) {
	t.Parallel()
	w := newWorld(t, corpora, "pub.layers.annotation.annotationLayer")
	m := &w.members[corpora][slices.IndexFunc(w.members[corpora], func(m member) bool { return m.key.DID == repos[0] })]
	for _, handle := range []string{"alice.test", "Alice.TEST"} {
		res := ask(t, w.service, "GET", getCorpus+"at://"+handle+"/"+m.key.Path())
		require.Equal(t, 200, res.Code, res.Body)
		var v view
		require.NoError(t, json.Unmarshal(res.Body.Bytes(), &v))
		sameValue(t, m, v) // its uri has the DID
		require.Empty(t, res.Header().Get("ETag"), "the CID does not say whose handle it is")
	}
	list := w.query(t, "pub.layers.corpus.listCorpora")
	byDID := uris(w.walk(t, list, url.Values{"repo": {string(repos[0])}}, 50))
	require.NotEmpty(t, byDID)
	require.Equal(t, byDID, uris(w.walk(t, list, url.Values{"repo": {"Alice.test"}}, 50)))

	layers := w.query(t, "pub.layers.annotation.listAnnotationLayers")
	const path = "/pub.layers.expression.expression/b"
	want := uris(w.walk(t, layers, url.Values{"expression": {"at://" + string(repos[0]) + path}}, 50))
	require.NotEmpty(t, want)
	require.Equal(t, want, uris(w.walk(t, layers, url.Values{"expression": {"at://alice.test" + path}}, 50)))

	for _, target := range []string{
		getCorpus + "at://nobody.test/" + m.key.Path(),
		listCorpora + "repo=nobody.test",
		"/xrpc/pub.layers.annotation.listAnnotationLayers?expression=at://nobody.test" + path,
	} {
		require.Contains(t, refused(t, ask(t, w.service, "GET", target), 400, "InvalidRequest"), `could not resolve handle "nobody.test"`)
	}
}

func TestARecordThatHasAURIWithAHandleIsFoundByIt(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	const layers = syntax.NSID("pub.layers.annotation.annotationLayer")
	ref := func(rkey syntax.RecordKey, expression string) member {
		return member{
			key:  record.Key{DID: repos[0], Collection: layers, Rkey: rkey},
			data: fixture.New(1).Record(layers, map[string]any{"expression": expression}),
		}
	}
	const path = "/pub.layers.expression.expression/x"
	w.add(t, ref("a", "at://alice.test"+path), ref("b", "at://"+string(repos[0])+path), ref("c", "at://bob.test"+path))
	list := w.query(t, "pub.layers.annotation.listAnnotationLayers")
	require.Len(t, w.walk(t, list, url.Values{"expression": {"at://alice.test" + path}}, 50), 2)
	require.Len(t, w.walk(t, list, url.Values{"expression": {"at://" + string(repos[0]) + path}}, 50), 1)
}

func TestEntityTags(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	w.add(t, corpus(repos[0], "a", 1, nil))
	m := w.members[corpora][0]
	target := getCorpus + m.key.String()
	tag := ask(t, w.service, "GET", target).Header().Get("ETag")
	require.Equal(t, `W/"`+string(m.cid)+`"`, tag)
	res := ask(t, w.service, "GET", target, "If-None-Match", tag)
	require.Equal(t, http.StatusNotModified, res.Code)
	require.Empty(t, res.Body.Bytes())
	require.Equal(t, tag, res.Header().Get("ETag"))
	require.Equal(t, 200, ask(t, w.service, "GET", target, "If-None-Match", `"other"`).Code)

	changed := corpus(repos[0], "a", 1, map[string]any{"name": "renamed"})
	w.add(t, changed)
	require.Equal(t, 200, ask(t, w.service, "GET", target, "If-None-Match", tag).Code, "the record has changed")
}

func TestHeadIsGetWithoutTheBody(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	w.add(t, corpus(repos[0], "a", 1, nil))
	for _, target := range []string{getCorpus + w.members[corpora][0].key.String(), listCorpora + "repo=alice.test"} {
		get, head := ask(t, w.service, "GET", target), ask(t, w.service, "HEAD", target)
		require.Equal(t, 200, head.Code)
		require.Equal(t, get.Header(), head.Header())
	}
	require.Equal(t, 400, ask(t, w.service, "HEAD", getCorpus+"x").Code)
}

func TestCursors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, corpora)
	list := w.query(t, "pub.layers.corpus.listCorpora")
	alice := url.Values{"repo": {string(repos[0])}}
	full := uris(w.walk(t, list, alice, 100))
	first := w.list(t, list, url.Values{"repo": {string(repos[0])}, "limit": {"10"}})

	// The size of a page may change in the middle of a walk, and a handle may stand for the DID.
	rest := w.list(t, list, url.Values{"repo": {"alice.test"}, "limit": {"20"}, "cursor": {first.cursor}})
	require.Equal(t, full[10:30], uris(rest.items))
	again := w.list(t, list, url.Values{"repo": {"alice.test"}, "limit": {"20"}, "cursor": {first.cursor}})
	require.Equal(t, rest, again, "the same page twice")

	for name, query := range map[string]string{
		"another repository": listCorpora + "repo=" + string(repos[1]),
		"a filter more":      listCorpora + "repo=" + string(repos[0]) + "&domain=common",
		"another query":      "/xrpc/pub.layers.media.listMedia?repo=" + string(repos[0]),
	} {
		message := refused(t, ask(t, w.service, "GET", query+"&cursor="+first.cursor), 400, "InvalidRequest")
		require.Contains(t, message, "cursor does not belong to this query", name)
		require.Contains(t, message, `"cursor"`)
	}
	for _, cursor := range []string{"", "x", "null", "undefined", first.cursor + "x", first.cursor[1:], first.cursor[:len(first.cursor)-30]} {
		message := refused(t, ask(t, w.service, "GET", listCorpora+"repo="+string(repos[0])+"&cursor="+cursor), 400, "InvalidRequest")
		require.Contains(t, message, `"cursor"`, cursor)
	}
	// Filters given in another order, or twice, are the same filters.
	langs := func(values ...string) url.Values {
		return url.Values{"repo": {string(repos[0])}, "languages": values, "limit": {"3"}}
	}
	const odd = "rare & <odd>; \u65e5\u672c+%"
	params := langs("common", odd)
	params.Set("cursor", w.list(t, list, langs(odd, "common", odd)).cursor)
	require.NotEmpty(t, w.list(t, list, params).items)
}

func TestAScopeThatHoldsNothingIsAnEmptyPage(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	for _, q := range w.catalog.Queries() {
		if q.Kind != catalog.List {
			continue
		}
		res := ask(t, w.service, "GET", with(t, q, "", ""))
		require.Equal(t, 200, res.Code, q.NSID)
		require.JSONEq(t, `{"`+q.Items+`":[]}`, res.Body.String(), q.NSID)
	}
}

// TestAWalkUnderWrites changes the list between the pages of a walk: what was
// there at the start and stays is seen exactly once.
func TestAWalkUnderWrites(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	for i := range 60 {
		w.add(t, corpus(repos[0], syntax.RecordKey(fmt.Sprintf("old%02d", i)), 100+i/4, nil))
	}
	list := w.query(t, "pub.layers.corpus.listCorpora")
	before := w.expect(list, url.Values{"repo": {string(repos[0])}})
	seen := map[string]int{}
	deleted := map[string]bool{}
	params := url.Values{"repo": {string(repos[0])}, "limit": {"7"}}
	for round := 0; ; round++ {
		p := w.list(t, list, params)
		for _, v := range p.items {
			seen[v.URI]++
		}
		if p.cursor == "" {
			break
		}
		params.Set("cursor", p.cursor)
		rkey := func(kind string) syntax.RecordKey { return syntax.RecordKey(fmt.Sprintf("%s%02d", kind, round)) }
		gone := w.members[corpora][5*round%len(w.members[corpora])].key
		deleted[gone.String()] = true
		w.delete(t, gone)
		w.add(t, corpus(repos[0], rkey("newer"), 1000+round, nil), corpus(repos[0], rkey("same"), 107, nil), corpus(repos[0], rkey("older"), round, nil))
		// An update, even one that claims another time, does not move a record.
		moved := w.members[corpora][len(w.members[corpora])/2].key
		w.add(t, corpus(repos[0], moved.Rkey, 5000+round, nil))
	}
	for _, uri := range before {
		if !deleted[uri] {
			require.Equal(t, 1, seen[uri], uri)
		}
	}
	for uri, times := range seen {
		require.Equal(t, 1, times, uri)
	}
}

// TestValuesSurviveExactly sends what encoders like to change.
func TestValuesSurviveExactly(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	given := map[string]any{
		"name": "a\x00b \u2028\u2029 <script>&amp;</script> \U0001f9d1\u200d\U0001f680 \ufeff\ufffd \x7f\x1f \"\\/",
		"unknown": map[string]any{
			"largest": int64(1<<53 - 1), "smallest": int64(-(1<<53 - 1)), "zero": int64(0),
			"": "empty key", "z": nil, "a": []any{true, false, []any{}, map[string]any{}}, "\x00": "NUL key",
		},
	}
	w.add(t, corpus(repos[0], "~.-_:Az09", 1, given))
	w.add(t, corpus(repos[0], syntax.RecordKey(strings.Repeat("~", 512)), 2, given))
	w.add(t, corpus(repos[0], "megabyte", 3, map[string]any{"unknown": strings.Repeat("\u00e9<", 330_000)}))
	for i := range w.members[corpora] {
		m := &w.members[corpora][i]
		res := ask(t, w.service, "GET", getCorpus+url.QueryEscape(m.key.String()))
		require.Equal(t, 200, res.Code, "%.300s", res.Body)
		var v view
		require.NoError(t, json.Unmarshal(res.Body.Bytes(), &v))
		sameValue(t, m, v)
	}
	views := w.walk(t, w.query(t, "pub.layers.corpus.listCorpora"), url.Values{"repo": {string(repos[0])}}, 2)
	require.Len(t, views, 3)
	for i, v := range views {
		sameValue(t, &w.members[corpora][i], v)
	}
}

func TestRecordsOfInactiveRepositoriesAreNotServed(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	w.add(t, corpus(repos[0], "a", 1, nil), corpus(repos[1], "b", 2, nil))
	target := getCorpus + w.members[corpora][1].key.String()
	require.Equal(t, 200, ask(t, w.service, "GET", target).Code)
	for _, status := range []string{"deactivated", "suspended", "takendown"} {
		w.setActive(t, repos[0], false, status)
		refused(t, ask(t, w.service, "GET", target), 400, "RecordNotFound")
		require.Empty(t, w.list(t, w.query(t, "pub.layers.corpus.listCorpora"), url.Values{"repo": {string(repos[0])}}).items, status)
		w.setActive(t, repos[0], true, "active")
		require.Equal(t, 200, ask(t, w.service, "GET", target).Code)
	}
}
