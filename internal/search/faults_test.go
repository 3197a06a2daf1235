package search_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/query/querytest"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// between puts a handler between a client and the real server, where faults can
// be made; pass sends a request on.
func between(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, pass http.Handler)) (*search.Client, *httptest.Server) {
	t.Helper()
	target, err := url.Parse(searchtest.URL(t))
	require.NoError(t, err)
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, pass) }))
	t.Cleanup(server.Close)
	cfg := searchtest.Config(t)
	cfg.URLs = []string{server.URL}
	return searchtest.Open(t, cfg), server
}

func isBulk(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/_bulk") }

func TestRefusedDocumentIsPermanentAndAlone(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	deep := strings.Repeat(`{"a":`, 1200) + `1` + strings.Repeat(`}`, 1200)
	err := client.Write(t.Context(), []search.Document{
		document("good", 1, `{"count":1}`),
		document("type", 1, `{"count":"many"}`),
		document("syntax", 1, `{"count":`),
		document("two", 1, `{}{}`),
		document("deep", 1, deep),
		document("name", 1, `{"":{}}`),
		document("better", 1, `{"count":2}`),
	})
	got := failures(t, err)
	var names []string
	for _, f := range got {
		names = append(names, string(f.Key.Rkey))
		require.False(t, f.Retryable, "%s: %v", f.Key, f.Err)
		require.Less(t, len(f.Err.Error()), 700)
	}
	require.ElementsMatch(t, []string{"type", "syntax", "two", "deep", "name"}, names)
	require.Contains(t, err.Error(), "5 records not written")
	require.Equal(t, map[string]int64{key("good").String(): 1, key("better").String(): 1}, scan(t, client))
}

func TestReadOnlyIndexIsRetryable(t *testing.T) {
	t.Parallel()
	client, cfg := open(t)
	// As the server does by itself when its disk is full.
	block := func(value string) {
		req, err := http.NewRequest(http.MethodPut, searchtest.URL(t)+"/"+cfg.Prefix+"-*/_settings",
			strings.NewReader(`{"index.blocks.read_only_allow_delete":`+value+`}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
	block("true")
	got := failures(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable, "%v", got[0].Err)
	block("null")
	require.NoError(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
}

func TestOverloadedServerIsRetryable(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 429, 500, 503, 504} {
		client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if isBulk(r) {
				http.Error(w, `{"error":{"type":"some_exception","reason":"no"}}`, status)
				return
			}
			pass.ServeHTTP(w, r)
		})
		_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
		require.NoError(t, err)
		got := failures(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`), document("b", 1, `{}`)}))
		require.Len(t, got, 2)
		for _, f := range got {
			require.True(t, f.Retryable, "%d: %v", status, f.Err)
		}
	}
}

func TestOverloadedShardIsRetryable(t *testing.T) {
	t.Parallel()
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if isBulk(r) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"items":[{"index":{"status":201}},{"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}}]}`)
			return
		}
		pass.ServeHTTP(w, r)
	})
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	got := failures(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`), document("b", 1, `{}`)}))
	require.Len(t, got, 1)
	require.Equal(t, key("b"), got[0].Key)
	require.True(t, got[0].Retryable)
}

func TestTruncatedAnswerIsRetryable(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{`{"items":[{"index":{"status":201}}`, `{"items":[]}`, ``, `<html>`} {
		client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if isBulk(r) {
				_, _ = io.WriteString(w, answer)
				return
			}
			pass.ServeHTTP(w, r)
		})
		_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
		require.NoError(t, err)
		got := failures(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
		require.Len(t, got, 1)
		require.True(t, got[0].Retryable, "%q", answer)
	}
}

func TestTooLargeRequestIsSplitDownToTheDocument(t *testing.T) {
	t.Parallel()
	const limit = 4000
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if isBulk(r) && r.ContentLength > limit {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		pass.ServeHTTP(w, r)
	})
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	var docs []search.Document
	for i := range 40 {
		docs = append(docs, document(fmt.Sprint("r", i), 1, `{"count":1}`))
	}
	docs = append(docs[:17:17], append([]search.Document{document("huge", 1, fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", limit)))}, docs[17:]...)...)
	got := failures(t, client.Write(t.Context(), docs))
	require.Len(t, got, 1)
	require.Equal(t, key("huge"), got[0].Key)
	require.False(t, got[0].Retryable)
	require.Len(t, scan(t, client), 40)
}

func TestSilentServerEndsWithTheContext(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if isBulk(r) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-held
			return
		}
		pass.ServeHTTP(w, r)
	})
	t.Cleanup(func() { close(held) }) // before the server closes, which waits for its handlers
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = client.Write(ctx, []search.Document{document("a", 1, `{}`)})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.True(t, failures(t, err)[0].Retryable)
}

// A server that goes away in the middle of a write and comes back: what Write
// reported as written is there, and trying the rest again completes it.
func TestServerStoppedWhileWriting(t *testing.T) {
	t.Parallel()
	var requests, down atomic.Int64
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !isBulk(r) {
			pass.ServeHTTP(w, r)
			return
		}
		switch n := requests.Add(1); {
		case down.Load() == 0 || n == 1:
			pass.ServeHTTP(w, r)
		case n == 2: // carried out, but the answer is lost
			pass.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default: // lost before it is carried out
			panic(http.ErrAbortHandler)
		}
	})
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	down.Store(1)
	var docs []search.Document
	text := strings.Repeat("word ", 100_000)
	for i := range 40 { // 20 MB, so several requests
		docs = append(docs, document(fmt.Sprint("r", i), 1, fmt.Sprintf(`{"text":%q}`, text)))
	}
	got := failures(t, client.Write(t.Context(), docs))
	require.Less(t, len(got), len(docs), "the first request went through")
	require.NotEmpty(t, got)
	failed := map[string]bool{}
	for _, f := range got {
		require.True(t, f.Retryable, "%v", f.Err)
		failed[f.Key.String()] = true
	}
	down.Store(0)
	there := scan(t, client)
	var again []search.Document
	for _, doc := range docs {
		if failed[doc.Key.String()] {
			again = append(again, doc)
		} else {
			require.Contains(t, there, doc.Key.String())
		}
	}
	require.NoError(t, client.Write(t.Context(), again))
	require.Len(t, scan(t, client), len(docs))
}

func TestConnectionRefusedIsRetryable(t *testing.T) {
	t.Parallel()
	client, server := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(w, r) })
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	server.Close()
	got := failures(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable)
	require.Error(t, client.Ping(t.Context()))
	require.Error(t, client.Refresh(t.Context(), collection))
	require.Error(t, client.Rebuilt(t.Context(), collection))
	_, err = client.Count(t.Context(), collection)
	require.Error(t, err)
}

// A scan must never pass off a part as the whole.
func TestScanReportsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	var searches atomic.Int64
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/_search") && searches.Add(1) == 2 {
			http.Error(w, `{"error":{"type":"search_phase_execution_exception","reason":"shard failed"}}`, http.StatusServiceUnavailable)
			return
		}
		pass.ServeHTTP(w, r)
	})
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	docs := make([]search.Document, 5001)
	for i := range docs {
		docs[i] = document(fmt.Sprint("r", i), 1, `{}`)
	}
	require.NoError(t, client.Write(t.Context(), docs))
	require.NoError(t, client.Refresh(t.Context(), collection))
	var seen int
	err = client.Scan(t.Context(), collection, func(record.Key, int64) error { seen++; return nil })
	require.ErrorContains(t, err, "shard failed")
	require.Less(t, seen, len(docs))
}

func TestAPIKeyAndSeveralNodes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	keys := map[string]bool{}
	_, server := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		mu.Lock()
		keys[r.Header.Get("Authorization")] = true
		mu.Unlock()
		pass.ServeHTTP(w, r)
	})
	cfg := searchtest.Config(t)
	cfg.URLs = []string{"http://127.0.0.1:1", server.URL} // the first node is down
	cfg.APIKey = "a2V5OnNlY3JldA=="
	client := searchtest.Open(t, cfg)
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	require.NoError(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	require.Equal(t, map[string]bool{"APIKey a2V5OnNlY3JldA==": true}, keys)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"status":"green"}`)
	}))
	t.Cleanup(server.Close)
	stranger := searchtest.Open(t, search.Config{URLs: []string{server.URL}})
	require.Error(t, stranger.Ping(t.Context()))
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	require.NoError(t, searchtest.Open(t, search.Config{URLs: []string{server.URL}, Roots: roots}).Ping(t.Context()))
}

// TestFirstPagesAtOnceOpenOneView has many ask at the same time: also who comes just as
// a view has been opened takes that.
func TestFirstPagesAtOnceOpenOneView(t *testing.T) {
	t.Parallel()
	world := querytest.NewWorld(t)
	var opened atomic.Int64
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/_pit") && r.Method == http.MethodPost {
			opened.Add(1)
		}
		pass.ServeHTTP(w, r)
	})
	_, err := client.Ensure(t.Context(), world.Mappings)
	require.NoError(t, err)
	reader := store.NewReader(storetest.New(t).Pool)
	const rounds, askers = 4, 16
	for range rounds {
		searcher := search.NewSearcher(client, world.Schema, reader)
		searcher.Share = time.Hour
		asking, ctx := errgroup.WithContext(t.Context())
		for range askers {
			asking.Go(func() error {
				_, err := searcher.Search(ctx, query.Question{Text: "corpus"})
				return err
			})
		}
		require.NoError(t, asking.Wait())
	}
	require.EqualValues(t, rounds, opened.Load())
}

// TestChangesOfIndexesWaitTheirTurn looks at every change of indexes, for none may be
// given up after the server's 30 s where a busy cluster has many.
func TestChangesOfIndexesWaitTheirTurn(t *testing.T) {
	t.Parallel()
	var changes atomic.Int64
	client, _ := between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method == http.MethodPut || r.Method == http.MethodDelete || strings.HasSuffix(r.URL.Path, "/_aliases") {
			changes.Add(1)
			assert.Equal(t, "100000ms", r.URL.Query().Get("master_timeout"), "%s %s", r.Method, r.URL.Path)
		}
		pass.ServeHTTP(w, r)
	})
	ctx := t.Context()
	_, err := client.Ensure(ctx, []search.Mapping{mapping()})
	require.NoError(t, err)
	require.NoError(t, client.Rebuilt(ctx, collection))
	beside, _, err := client.Beside(ctx, "next", []search.Mapping{mapping()})
	require.NoError(t, err)
	require.NoError(t, client.Promote(ctx, beside))
	require.NoError(t, client.Drop(ctx))
	require.EqualValues(t, 12, changes.Load())
}
