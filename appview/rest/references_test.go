package rest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// walkReferences reads all pages of a question.
func (w *world) walkReferences(t *testing.T, limit int, params url.Values) (target, []reference) {
	t.Helper()
	asked := url.Values{"limit": {fmt.Sprint(limit)}}
	for name, values := range params {
		asked[name] = values
	}
	var all []reference
	for {
		var p references
		w.get(t, "/references", asked, &p)
		require.NotNil(t, p.References)
		all = append(all, p.References...)
		if p.Cursor == "" {
			return p.Target, all
		}
		require.Len(t, p.References, limit)
		asked.Set("cursor", p.Cursor)
	}
}

// named works out what a record names, from the catalog's own reading of it.
func (w *world) named(t *testing.T, m *member) (all []store.Reference) {
	t.Helper()
	found, err := w.catalog.Check(m.key, blockOf(t, m.data))
	require.NoError(t, err)
	for _, r := range found.Refs {
		all = append(all, store.Reference{Source: m.key, Path: r.Path, Target: string(r.Target)})
	}
	for _, l := range found.Links {
		all = append(all, store.Reference{Source: m.key, Path: l.Path, Target: l.Target})
	}
	return all
}

// Every reference of records of all types, from both ends, against what the records say.
func TestReferencesAgreeWithBruteForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, rt := range w.rest.types {
		w.fill(t, rt.collection, 4)
	}
	w.put(t, carol, expressions, "known", nil)
	for i := range 3 { // what is there, what is not, and what is not for the index
		w.put(t, bob, layers, fmt.Sprint("on", i), map[string]any{"expression": "at://" + string(carol) + "/pub.layers.expression.expression/known"})
	}
	w.put(t, bob, expressions, "post", map[string]any{"sourceRef": "at://did:plc:zzzzzzzzzzzzzzzzzzzzzzzz/app.bsky.feed.post/3lwafzkjqm25s", "sourceUrl": "https://example.org/a?b=c#d"})

	there, back := map[string]bool{}, map[string][]store.Reference{}
	for _, list := range w.members {
		for _, m := range list {
			there[m.key.String()] = true
			forward := w.named(t, m)
			for _, r := range forward {
				back[r.Target] = append(back[r.Target], r)
			}
			slices.SortFunc(forward, func(a, b store.Reference) int {
				return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Target, b.Target))
			})
			at, got := w.walkReferences(t, 100, url.Values{"target": {m.key.String()}, "direction": {"forward"}})
			require.Equal(t, statePresent, at.State)
			require.Equal(t, forward, stripped(t, got), m.key.String())
		}
	}
	kinds := map[string]int{}
	for name, want := range back {
		slices.SortFunc(want, bySource)
		at, got := w.walkReferences(t, 100, url.Values{"target": {name}})
		require.Equal(t, want, stripped(t, got), name)
		require.Equal(t, w.wantState(name, there), at.State, name)
		kinds[at.Kind+" "+at.State]++
		for _, r := range got {
			require.Equal(t, at.State, r.State)
			require.Equal(t, at.Kind, r.Kind)
		}
	}
	for _, kind := range []string{"record present", "record dangling", "record outside", "did outside", "uri outside"} {
		require.NotZero(t, kinds[kind], "%s: %v", kind, kinds)
	}
	want := back["at://"+string(carol)+"/pub.layers.expression.expression/known"]
	_, got := w.walkReferences(t, 1, url.Values{"target": {want[0].Target}})
	require.Equal(t, want, stripped(t, got), "pages of one")
}

func bySource(a, b store.Reference) int {
	return cmp.Or(cmp.Compare(a.Source.Collection, b.Source.Collection), cmp.Compare(a.Source.DID, b.Source.DID),
		cmp.Compare(a.Source.Rkey, b.Source.Rkey), cmp.Compare(a.Path, b.Path))
}

func (w *world) wantState(name string, there map[string]bool) string {
	key, ok := recordAt(name)
	switch {
	case !ok || w.rest.typeOf(key.Collection) == nil:
		return stateOutside
	case there[name]:
		return statePresent
	}
	return stateDangling
}

// stripped is what a reference is, without what the answer says of it.
func stripped(t *testing.T, all []reference) (out []store.Reference) {
	t.Helper()
	for _, r := range all {
		key, ok := recordAt(string(r.Source))
		require.True(t, ok)
		out = append(out, store.Reference{Source: key, Path: r.Path, Target: r.Target})
	}
	return out
}

func TestReferencesAreFilteredAndFollowChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.put(t, alice, expressions, "e", nil)
	uri := e.key.String()
	on := w.put(t, bob, layers, "on", map[string]any{"expression": uri, "parentLayerRef": nil})
	part := w.put(t, carol, expressions, "part", map[string]any{"parentRef": uri})
	inCorpus := w.put(t, bob, memberships, "m", map[string]any{"expressionRef": uri})
	sources := func(params url.Values) (all []record.Key) {
		params.Set("target", uri)
		_, found := w.walkReferences(t, 50, params)
		for _, r := range stripped(t, found) {
			all = append(all, r.Source)
		}
		return slices.Compact(all)
	}
	require.Equal(t, []record.Key{on.key, inCorpus.key, part.key}, sources(url.Values{}))
	require.Equal(t, []record.Key{on.key}, sources(url.Values{"ref_type": {"annotation-layers"}}))
	require.Equal(t, []record.Key{part.key}, sources(url.Values{"path": {"parentRef"}}))
	require.Empty(t, sources(url.Values{"path": {"parentRef"}, "ref_type": {"annotation-layers"}}))
	byHandle := url.Values{"target": {"at://alice.test/pub.layers.expression.expression/e"}, "limit": {"2"}}
	at, found := w.walkReferences(t, 2, byHandle)
	require.Equal(t, uri, at.Target)
	require.GreaterOrEqual(t, len(found), 3)

	_, forward := w.walkReferences(t, 50, url.Values{"target": {on.key.String()}, "direction": {"forward"}, "ref_type": {"expressions"}})
	require.Equal(t, []reference{{
		Source: on.key.URI(), Type: "annotation-layers", Path: "expression", Target: uri, Kind: kindRecord, State: statePresent, TargetType: "expressions",
	}}, forward)

	w.setActive(t, bob, false)
	require.Equal(t, []record.Key{part.key}, sources(url.Values{}))
	w.refused(t, "/references?direction=forward&target="+url.QueryEscape(on.key.String()), http.StatusNotFound, "RecordNotFound")
	w.setActive(t, bob, true)

	w.setActive(t, alice, false)
	_, found = w.walkReferences(t, 50, url.Values{"target": {uri}, "ref_type": {"annotation-layers"}})
	require.Equal(t, stateDangling, found[0].State, "a record of an inactive account is not here")
	w.setActive(t, alice, true)

	w.apply(t, nil, store.Change{Action: record.Delete, Key: on.key})
	require.Equal(t, []record.Key{inCorpus.key, part.key}, sources(url.Values{}))
}

func TestWrongQuestionsForReferencesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for query, says := range map[string]string{
		"":                                   "required",
		"target=":                            "expected an AT-URI, a DID or a web address",
		"target=abc":                         "expected an AT-URI, a DID or a web address",
		"target=at://x":                      "malformed AT-URI",
		"target=did:x":                       "malformed DID",
		"target=did:plc:a&direction=up":      "one of back, forward",
		"target=did:plc:a&ref_type=x":        "one of agreement-reports",
		"target=did:plc:a&cursor=abc":        "cursor",
		"target=did:plc:a&cursor=WyJhIl0":    "cursor",
		"target=did:plc:a&direction=forward": "expected the AT-URI of one record",
	} {
		require.Contains(t, w.refused(t, "/references?"+query, http.StatusBadRequest, "InvalidRequest"), says, query)
	}
	foreign := encodeToken([]string{"references", "did:plc:b", "back", "", ""}, exampleURI(layers), "a", "did:plc:b")
	w.refused(t, "/references?target=did:plc:a&cursor="+foreign, http.StatusBadRequest, "InvalidRequest")
	forged := encodeToken([]string{"references", "did:plc:a", "back", "", ""}, exampleURI(layers), "a\x00", "did:plc:a")
	w.refused(t, "/references?target=did:plc:a&cursor="+forged, http.StatusBadRequest, "InvalidRequest")
}

// Whatever the size, a composite asks the store the same few questions.
func TestCompositeIsAFewQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	counted := &counting{Reader: store.NewReader(w.db.Pool)}
	w.rest.reads = counted
	corpus := w.put(t, alice, corpora, "c", map[string]any{"ontologyRefs": []any{"at://" + string(bob) + "/pub.layers.ontology.ontology/o", "at://" + string(bob) + "/pub.layers.ontology.ontology/gone"}})
	ontology := w.put(t, bob, "pub.layers.ontology.ontology", "o", nil)
	var first int
	for _, n := range []int{1, 40} {
		for i := range n {
			e := w.put(t, bob, expressions, fmt.Sprintf("e%02d", i), nil)
			w.put(t, carol, memberships, fmt.Sprintf("m%02d", i), map[string]any{"corpusRef": corpus.key.String(), "expressionRef": e.key.String()})
		}
		counted.asked = 0
		var got full
		w.get(t, w.at(corpus.key, "full"), url.Values{"limit": {"30"}}, &got)
		require.Equal(t, corpus.key.URI(), got.URI)
		require.Equal(t, string(corpus.json), string(got.Value))
		require.Len(t, got.ReferredBy["memberships"].Records, min(n, 30))
		require.Equal(t, n > 30, got.ReferredBy["memberships"].More)
		require.Equal(t, []string{"corpusRef"}, got.ReferredBy["memberships"].Records[0].Paths)
		for _, m := range w.members[expressions][:min(n, 30)] {
			if _, ok := got.Included[m.key.URI()]; n == 1 {
				require.True(t, ok)
			}
		}
		require.Contains(t, got.Included, ontology.key.URI())
		require.Contains(t, states(got.References), "ontologyRefs[] present")
		require.Contains(t, states(got.References), "ontologyRefs[] dangling")
		if first == 0 {
			first = counted.asked
		}
		require.Equal(t, first, counted.asked, "questions to the store")
	}
	require.LessOrEqual(t, first, 6)
	for _, rt := range w.rest.types {
		m := w.put(t, alice, rt.collection.NSID, "any", nil)
		var got full
		w.get(t, w.at(m.key, "full"), nil, &got)
		require.Equal(t, m.key.URI(), got.URI)
		require.Len(t, got.References, len(w.named(t, m)), rt.name)
	}
}

func states(all []forward) (out []string) {
	for _, f := range all {
		out = append(out, f.Path+" "+f.State)
	}
	return out
}

func TestMembersOfACorpus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	corpus := w.put(t, alice, corpora, "c", nil)
	w.put(t, alice, corpora, "empty", nil)
	want := map[syntax.ATURI]bool{}
	for i := range 12 {
		e := w.put(t, bob, expressions, fmt.Sprint("e", i), nil)
		split := []string{"train", "test"}[i%2]
		m := w.put(t, carol, memberships, fmt.Sprint("m", i), map[string]any{"corpusRef": corpus.key.String(), "expressionRef": e.key.String(), "split": split})
		want[m.key.URI()] = split == "train"
	}
	dangling := w.put(t, carol, memberships, "dangling", map[string]any{"corpusRef": corpus.key.String(), "expressionRef": exampleURI(expressions), "split": "dev"})
	read := func(params url.Values) map[syntax.ATURI]membership {
		all := map[syntax.ATURI]membership{}
		for params.Set("limit", "5"); ; {
			var p members
			w.get(t, w.at(corpus.key, "members"), params, &p)
			for _, m := range p.Records {
				require.NotContains(t, all, m.URI)
				all[m.URI] = m
			}
			if p.Cursor == "" {
				return all
			}
			params.Set("cursor", p.Cursor)
		}
	}
	all := read(url.Values{})
	require.Len(t, all, 13)
	require.Nil(t, all[dangling.key.URI()].Expression)
	for uri := range want {
		require.NotNil(t, all[uri].Expression)
	}
	train := read(url.Values{"split": {"train"}})
	require.Len(t, train, 6)
	for uri := range train {
		require.True(t, want[uri])
	}
	w.refused(t, "/corpora/"+url.PathEscape(exampleURI(corpora))+"/members", http.StatusNotFound, "RecordNotFound")
	var none members
	w.get(t, w.at(record.Key{DID: alice, Collection: corpora, Rkey: "empty"}, "members"), nil, &none)
	require.Empty(t, none.Records)
}

func TestExpandIncludesTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.put(t, alice, expressions, "e", nil)
	persona := w.put(t, bob, "pub.layers.persona.persona", "p", nil)
	layer := w.put(t, bob, layers, "l", map[string]any{"expression": e.key.String(), "annotations": []any{}, "metadata": map[string]any{"tool": "t", "personaRef": persona.key.String()}})
	for expand, want := range map[string][]syntax.ATURI{
		"expression":                     {e.key.URI()},
		"expression,metadata.personaRef": {e.key.URI(), persona.key.URI()},
		"*":                              {e.key.URI(), persona.key.URI()},
		"annotations.ontologyTypeRef":    {},
	} {
		var got one
		w.get(t, w.at(layer.key), url.Values{"expand": {expand}}, &got)
		var included []syntax.ATURI
		for uri := range got.Included {
			included = append(included, uri)
		}
		require.ElementsMatch(t, want, included, expand)
		var p page
		w.get(t, "/annotation-layers", url.Values{"expand": {expand}, "repo": {string(bob)}}, &p)
		require.Len(t, p.Included, len(want))
	}
	require.Contains(t, w.refused(t, w.at(layer.key)+"?expand=nothing", http.StatusBadRequest, "InvalidRequest"), "no property")
	w.setActive(t, alice, false)
	var got one
	w.get(t, w.at(layer.key), url.Values{"expand": {"expression"}}, &got)
	require.Empty(t, got.Included)
}
