package xrpc

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// externalView is one record in the answer of listExternal.
type externalView struct {
	NSID  string
	URI   string
	CID   string
	Value json.RawMessage
}

// withForeign is a world that follows three foreign collections in two repositories.
func withForeign(t *testing.T) (*world, []member) {
	t.Helper()
	w := newEmptyWorld(t)
	require.NoError(t, w.catalog.Follow("app.bsky.*", "org.example.thing"))
	var members []member
	for i := range 230 {
		collection := []syntax.NSID{"app.bsky.feed.post", "app.bsky.feed.like", "org.example.thing"}[i%3]
		members = append(members, member{
			key: record.Key{DID: repos[i%2], Collection: collection, Rkey: syntax.RecordKey(fmt.Sprintf("r%03d", i))},
			data: map[string]any{
				"$type": string(collection), "n": int64(i), "text": "<b>\x00",
				"createdAt": time.Date(2025, 1, 1, 0, 0, i/4, 0, time.UTC).Format(time.RFC3339),
			},
		})
	}
	w.add(t, members...)
	w.add(t, corpus(repos[0], "own", 1, nil)) // must never be listed
	return w, members
}

func TestGetExternal(t *testing.T) {
	t.Parallel()
	w, members := withForeign(t)
	const path = "/xrpc/pub.layers.integration.getExternal?uri="
	valid := outputCheck(t, w.query(t, getExternal))
	m := &w.members["app.bsky.feed.post"][0]
	for _, query := range []string{path + m.key.String(), path + m.key.String() + "&fresh=true", path + "at://alice.test/" + m.key.Path()} {
		if m.key.DID != repos[0] && query == path+"at://alice.test/"+m.key.Path() {
			query = path + "at://bob.test/" + m.key.Path()
		}
		res := ask(t, w.service, "GET", query)
		require.Equal(t, 200, res.Code, res.Body)
		valid(res.Body.Bytes())
		var got struct {
			externalView
			FromCache *bool
		}
		require.NoError(t, json.Unmarshal(res.Body.Bytes(), &got))
		sameValue(t, m, view{got.URI, got.CID, got.Value})
		require.Equal(t, "app.bsky.feed.post", got.NSID)
		require.True(t, *got.FromCache)
	}
	require.Len(t, members, 230)
	refused(t, ask(t, w.service, "GET", path+m.key.String()+"0"), 400, "NotFound")
	refused(t, ask(t, w.service, "GET", path+"at://"+string(repos[0])+"/com.example.unheard/a"), 400, "NotFound")
	message := refused(t, ask(t, w.service, "GET", path+"at://"+string(repos[0])+"/pub.layers.corpus.corpus/own"), 400, "BadRequest")
	require.Contains(t, message, "pub.layers.corpus.corpus")
	refused(t, ask(t, w.service, "GET", path+"at://"+string(repos[0])), 400, "InvalidRequest")
}

func TestListExternal(t *testing.T) {
	t.Parallel()
	w, _ := withForeign(t)
	valid := outputCheck(t, w.query(t, listExternal))
	walk := func(params url.Values, limit int) (uris []string) {
		params = cloneParams(params)
		if limit > 0 {
			params.Set("limit", fmt.Sprint(limit))
		}
		for {
			res := ask(t, w.service, "GET", "/xrpc/pub.layers.integration.listExternal?"+params.Encode())
			require.Equal(t, 200, res.Code, res.Body)
			valid(res.Body.Bytes())
			var body struct {
				Records []externalView
				Cursor  *string
			}
			require.NoError(t, json.Unmarshal(res.Body.Bytes(), &body))
			for _, v := range body.Records {
				uris = append(uris, v.URI)
				require.Contains(t, v.URI, "/"+v.NSID+"/")
				require.NotEqual(t, "pub.layers.corpus.corpus", v.NSID)
			}
			if body.Cursor == nil {
				return uris
			}
			if limit == 0 {
				limit = 50 // the default
			}
			require.Len(t, body.Records, limit)
			params.Set("cursor", *body.Cursor)
		}
	}
	matching := func(match func(member) bool) map[string]bool {
		out := map[string]bool{}
		for collection, list := range w.members {
			for _, m := range list {
				if collection != corpora && match(m) {
					out[m.key.String()] = true
				}
			}
		}
		return out
	}
	for _, c := range []struct {
		params url.Values
		match  func(member) bool
	}{
		{nil, func(member) bool { return true }},
		{url.Values{"did": {string(repos[1])}}, func(m member) bool { return m.key.DID == repos[1] }},
		{url.Values{"nsid": {"app.bsky.feed.like"}}, func(m member) bool { return m.key.Collection == "app.bsky.feed.like" }},
		{url.Values{"nsidPrefix": {"app.bsky."}}, func(m member) bool { return m.key.Collection != "org.example.thing" }},
		{url.Values{"nsidPrefix": {"app.bsky"}}, func(m member) bool { return m.key.Collection != "org.example.thing" }},
		{url.Values{"nsidPrefix": {"app.bsky.feed.l"}}, func(m member) bool { return m.key.Collection == "app.bsky.feed.like" }},
		{url.Values{"nsidPrefix": {"org."}, "did": {string(repos[0])}}, func(m member) bool {
			return m.key.Collection == "org.example.thing" && m.key.DID == repos[0]
		}},
		{url.Values{"nsid": {"app.bsky.feed.post"}, "nsidPrefix": {"app.bsky.feed."}}, func(m member) bool { return m.key.Collection == "app.bsky.feed.post" }},
		{url.Values{"nsid": {"org.example.thing"}, "nsidPrefix": {"app."}}, func(member) bool { return false }},
		{url.Values{"nsidPrefix": {"%"}}, func(member) bool { return false }},
		{url.Values{"nsidPrefix": {"app_bsky"}}, func(member) bool { return false }},
		{url.Values{"nsid": {"pub.layers.corpus.corpus"}}, func(member) bool { return false }},
		{url.Values{"nsidPrefix": {"pub.layers."}}, func(member) bool { return false }},
		{url.Values{"nsid": {"no nsid at all"}}, func(member) bool { return false }},
	} {
		want := matching(c.match)
		first := walk(c.params, 0)
		require.Len(t, first, len(want), c.params)
		for _, uri := range first {
			require.True(t, want[uri], "%v: %s", c.params, uri)
			delete(want, uri)
		}
		for _, limit := range []int{7, 200} {
			require.Equal(t, first, walk(c.params, limit), "limit %d: other records, or in another order", limit)
		}
	}
}
