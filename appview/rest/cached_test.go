package rest

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// keep has the world's service keep its answers in Redis, and returns how many it gave
// from there so far.
func (w *world) keep(t *testing.T) (kept func() int) {
	t.Helper()
	registry := prometheus.NewRegistry()
	address := os.Getenv("LAYERS_TEST_REDIS_URL")
	require.NotEmpty(t, address, "LAYERS_TEST_REDIS_URL: run `make test`")
	var err error
	w.cache, err = cache.New(cache.Config{RedisURL: address, Version: rand.Text(), Changes: store.NewChanges(w.db.Reads(t)), Registry: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.cache.Close()) })
	w.serve(w.db.Reads(t))
	return func() (n int) {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "from" && l.GetValue() == "kept" {
						n += int(m.GetCounter().GetValue())
					}
				}
			}
		}
		return n
	}
}

// TestKeptAnswersAreThoseThatWouldBeWorkedOut asks the same of two services, of which
// one keeps its answers, while records and accounts come and go.
func TestKeptAnswersAreThoseThatWouldBeWorkedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.http
	kept := w.keep(t)
	keeping := w.http
	expression := w.put(t, alice, expressions, "e", map[string]any{"text": "one"})
	corpus := w.put(t, bob, corpora, "c", nil)
	write := func(text string) {
		w.put(t, alice, expressions, "e", map[string]any{"text": text})
		w.put(t, bob, memberships, "m", map[string]any{"corpusRef": corpus.key.String(), "expressionRef": expression.key.String()})
		w.put(t, carol, layers, "l", map[string]any{"expression": expression.key.String(), "kind": text})
	}
	write("two")
	paths := []string{
		w.at(expression.key, "full"), w.at(corpus.key, "full"), w.at(corpus.key, "members"), w.at(corpus.key, "members") + "?limit=1",
		"/references?" + url.Values{"target": {expression.key.String()}}.Encode(),
		"/references?" + url.Values{"target": {expression.key.String()}, "direction": {"forward"}}.Encode(),
	}
	remove := func(did syntax.DID, collection syntax.NSID, rkey string) {
		w.apply(t, nil, store.Change{Action: record.Delete, Key: record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(rkey)}})
	}
	changes := []func(){
		func() { write(rand.Text()) }, func() { remove(carol, layers, "l") }, func() { remove(bob, memberships, "m") }, func() { remove(alice, expressions, "e") },
		func() { w.setActive(t, carol, false) }, func() { w.setActive(t, carol, true) }, func() { w.setActive(t, alice, false) }, func() { w.setActive(t, alice, true) },
	}
	rng := mathrand.New(mathrand.NewPCG(3, 3))
	for range 30 {
		changes[rng.IntN(len(changes))]()
		for _, path := range paths {
			w.http = plain
			want := w.ask(t, Prefix+path)
			w.http = keeping
			for range 3 {
				got := w.ask(t, Prefix+path)
				require.Equal(t, want.status, got.status, path)
				require.Equal(t, string(want.body), string(got.body), path)
				require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"))
			}
		}
	}
	require.Positive(t, kept(), "nothing was ever given again")
}

// TestAnswersByHandleAndLaterPagesAreNotKept looks at what is in Redis.
func TestAnswersByHandleAndLaterPagesAreNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kept := w.keep(t)
	e := w.put(t, alice, expressions, "e", nil)
	byHandle := strings.Replace(e.key.String(), string(alice), "alice.test", 1)
	for range 5 {
		require.Equal(t, http.StatusOK, w.ask(t, Prefix+"/references?"+url.Values{"target": {byHandle}}.Encode()).status)
		require.Equal(t, http.StatusOK, w.ask(t, Prefix+"/expressions/"+url.PathEscape(byHandle)+"/full").status)
	}
	require.Zero(t, kept())
	require.Eventually(t, func() bool {
		before := kept()
		w.ask(t, Prefix+w.at(e.key, "full"))
		return kept() > before
	}, time.Minute, time.Millisecond)
}

// TestRoutesThatKeepAnswersAreNoStreams holds the table to what Cache asks of a route, and
// lines that are asked for by Accept to be written to who asks.
func TestRoutesThatKeepAnswersAreNoStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keep(t)
	w.put(t, alice, corpora, "c", map[string]any{"name": "Quokka"})
	w.follow(t)
	for range 3 {
		require.JSONEq(t, "1", string(field(t, w.ask(t, Prefix+"/search?q=quokka").body, "total", "value")))
		hits, last := hitLines(t, w.ask(t, Prefix+"/search?q=quokka", "Accept", mediaLines))
		require.Len(t, hits, 1)
		require.Equal(t, "complete", last.End)
	}
	require.Equal(t, "Accept", w.ask(t, Prefix+"/search?q=quokka").header.Get("Vary"))
	n := 0
	for _, r := range w.rest.Routes() {
		if r.Cache.For == 0 {
			continue
		}
		n++
		require.False(t, r.Stream, r.Path)
	}
	require.Positive(t, n)
}

// field is what a JSON object has at a path.
func field(t *testing.T, body []byte, path ...string) (raw json.RawMessage) {
	t.Helper()
	raw = body
	for _, name := range path {
		var object map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(raw, &object), "%s", raw)
		raw = object[name]
	}
	return raw
}
