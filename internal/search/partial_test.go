package search_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/query/querytest"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// TestAPartIsNotTheWhole has the server answer 200 for less than was asked for, as it
// can while it recovers.
func TestAPartIsNotTheWhole(t *testing.T) {
	t.Parallel()
	world := querytest.NewWorld(t)
	var spoil atomic.Pointer[func(map[string]any) map[string]any]
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		edit := spoil.Load()
		asks := strings.HasSuffix(r.URL.Path, "/_search") || strings.HasSuffix(r.URL.Path, "/_count") || strings.HasSuffix(r.URL.Path, "/_refresh")
		if edit == nil || !asks {
			pass.ServeHTTP(w, r)
			return
		}
		r.Header.Del("Accept-Encoding")
		answered := httptest.NewRecorder()
		pass.ServeHTTP(answered, r)
		var body map[string]any
		if err := json.Unmarshal(answered.Body.Bytes(), &body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode((*edit)(body))
	})
	_, err := client.Ensure(t.Context(), world.Mappings)
	require.NoError(t, err)
	u := underTest{search.NewSearcher(client, world.Schema, store.NewReader(storetest.New(t).Pool)), client, nil}
	corpora := querytest.Corpora(t, world, 3)
	u.Put(t, corpora...)
	collection := corpora[0].Document.Key.Collection
	ask := map[string]func() error{
		"search": func() error { _, err := u.Search(t.Context(), query.Question{Text: "corpus"}); return err },
		"complete": func() error {
			_, err := u.Complete(t.Context(), query.Completion{Text: "corpus"})
			return err
		},
		"scan": func() error {
			return client.Scan(t.Context(), collection, func(record.Key, int64) error { return nil })
		},
		"count":   func() error { _, err := client.Count(t.Context(), collection); return err },
		"refresh": func() error { return client.Refresh(t.Context(), collection) },
	}
	for name, question := range ask {
		require.NoError(t, question(), name)
	}
	failed := func(body map[string]any) map[string]any {
		body["_shards"] = map[string]any{"total": 2, "successful": 1, "failed": 1}
		return body
	}
	late := func(body map[string]any) map[string]any { body["timed_out"] = true; return body }
	empty := func(map[string]any) map[string]any { return map[string]any{} }
	for _, c := range []struct {
		by   string
		edit func(map[string]any) map[string]any
		of   []string
	}{
		{"a shard failed", failed, []string{"search", "complete", "scan", "count", "refresh"}},
		{"the time was over", late, []string{"search", "complete", "scan"}},
		{"nothing is said", empty, []string{"search", "complete", "scan"}},
	} {
		spoil.Store(&c.edit)
		for _, name := range c.of {
			err := ask[name]()
			require.ErrorContains(t, err, "a part of the index", "%s, %s", name, c.by)
			if name == "search" || name == "complete" {
				require.ErrorIs(t, err, query.ErrUnavailable, "%s, %s", name, c.by)
			}
		}
	}
	spoil.Store(nil)
	require.NoError(t, ask["search"]())
}
