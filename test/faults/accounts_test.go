package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// endpoints asks the API for an account's records in every way there is.
type endpoints struct {
	t    *testing.T
	base string
	gets map[syntax.NSID]syntax.NSID // by collection
	list []*catalog.Query            // those that take a repository
}

func newEndpoints(t *testing.T, base string) *endpoints {
	t.Helper()
	known, err := catalog.Load()
	require.NoError(t, err)
	e := &endpoints{t: t, base: base, gets: map[syntax.NSID]syntax.NSID{}}
	for _, q := range known.Queries() {
		switch q.Kind {
		case catalog.Get:
			e.gets[q.Collection] = q.NSID
		case catalog.List:
			e.list = append(e.list, q)
		}
	}
	require.NotEmpty(t, e.gets)
	require.NotEmpty(t, e.list)
	return e
}

func (e *endpoints) ask(query syntax.NSID, params url.Values) (status int, answer string) {
	e.t.Helper()
	response, err := http.Get(e.base + "/xrpc/" + string(query) + "?" + params.Encode())
	require.NoError(e.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(e.t, err)
	return response.StatusCode, string(raw)
}

// visible requires that each record is answered, or that none is: by get queries, by
// lists of the repository, and by lists of what its records refer to.
func (e *endpoints) visible(records map[key]string, values map[string]map[string]any, yes bool) {
	e.t.Helper()
	for k, cid := range records {
		status, answer := e.ask(e.gets[k.collection], url.Values{"uri": {k.String()}})
		if yes {
			require.Equal(e.t, http.StatusOK, status, "%s: %s", k, answer)
			require.Contains(e.t, answer, cid)
		} else {
			require.Equal(e.t, http.StatusBadRequest, status, "%s: %s", k, answer)
			require.Contains(e.t, answer, "RecordNotFound")
		}
		for _, q := range e.list {
			if q.Collection == k.collection {
				e.listed(q, k, values[cid], yes)
			}
		}
	}
}

// listed looks for a record in a list that it must be in, by each parameter that
// the list requires.
func (e *endpoints) listed(q *catalog.Query, k key, value map[string]any, yes bool) {
	e.t.Helper()
	params := url.Values{"limit": {"100"}}
	for _, p := range q.Params {
		if !p.Required {
			continue
		}
		term := string(k.did)
		if p.Name != "repo" {
			text, ok := value[p.Name].(string)
			if !ok {
				return // the list is by something that the record does not have
			}
			term = text
		}
		params.Set(p.Name, term)
	}
	found := false
	for {
		status, answer := e.ask(q.NSID, params)
		require.Equal(e.t, http.StatusOK, status, "%s: %s", q.NSID, answer)
		found = found || strings.Contains(answer, `"`+k.String()+`"`) && strings.Contains(answer, `"uri":"`+k.String()+`"`)
		var page struct{ Cursor string }
		require.NoError(e.t, json.Unmarshal([]byte(answer), &page))
		if page.Cursor == "" {
			break
		}
		params.Set("cursor", page.Cursor)
	}
	require.Equal(e.t, yes, found, "%s in %s with %s", k, q.NSID, params.Encode())
}

// TestAccountsInEveryStore (G7) takes accounts through each status. While one is not
// active, none of its records is answered by any endpoint or held by a projection;
// active again, all are back.
func TestAccountsInEveryStore(t *testing.T) {
	l, ix, api := inEveryStore(t, 5)
	for i, status := range []simulate.Status{simulate.Deactivated, simulate.Suspended, simulate.TakenDown, "something new"} {
		did := l.dids[i]
		all := l.recordsOf(did)
		api.visible(all, l.contents, true)
		l.status(did, status)
		l.settled(ix)
		api.visible(all, l.contents, false)
		require.Zero(t, l.documentsOf(did)+l.nodesOf(did), "an account is %s", status)
		l.status(did, simulate.Active)
		l.commit(did)
		l.settled(ix)
		all = l.recordsOf(did)
		api.visible(all, l.contents, true)
		require.Positive(t, l.documentsOf(did))
		require.Positive(t, l.nodesOf(did))
	}
	ix.Stop()
}

// inEveryStore is an installation with all four stores that has some accounts with
// some records of every kind. Settings are as for newLab.
func inEveryStore(t *testing.T, accounts int, settings ...string) (*lab, *rig.Process, *endpoints) {
	t.Helper()
	a := newAuthor(t, seeded(t), simulate.Config{})
	for range accounts {
		did := a.account()
		for _, collection := range collections {
			a.made++
			value := a.maker.Record(collection)
			a.write(did, simulate.Create(collection, syntax.RecordKey(fmt.Sprintf("of-each-%d", a.made)), value))
		}
	}
	l := newLab(t, a, rig.OpenStores(t), append(settings, "LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true")...)
	ix := l.Indexer()
	l.settled(ix)
	return l, ix, newEndpoints(t, l.API())
}

// settled waits until the index is what it should be, and the projections too.
func (l *lab) settled(ix *rig.Process) {
	l.t.Helper()
	l.equal(ix)
	l.Settle(ix)
}

func (l *lab) recordsOf(did syntax.DID) map[key]string {
	of := l.now().of(func(other syntax.DID) bool { return other == did })
	require.NotEmpty(l.t, len(of.records)+len(of.hidden))
	if len(of.records) == 0 {
		return of.hidden
	}
	return of.records
}

// documentsOf counts the documents that name an account as theirs.
func (l *lab) documentsOf(did syntax.DID) int {
	l.t.Helper()
	return l.documents(map[string]any{"term": map[string]any{"did": did}})
}

func (l *lab) documents(query map[string]any) int {
	l.t.Helper()
	l.Search(l.t, http.MethodPost, "/"+l.Prefix+"-*/_refresh", nil, nil)
	var answer struct{ Count int }
	l.Search(l.t, http.MethodPost, "/"+l.Prefix+"-*/_count", map[string]any{"query": query}, &answer)
	return answer.Count
}

// nodesOf counts the nodes of records that an account has.
func (l *lab) nodesOf(did syntax.DID) int {
	l.t.Helper()
	n := 0
	for _, row := range l.Cypher(l.t, "MATCH (n:Record) WHERE n.key STARTS WITH $space AND coalesce(n._dangling, false) = false RETURN n.did AS did") {
		if row.AsMap()["did"] == string(did) {
			n++
		}
	}
	return n
}
