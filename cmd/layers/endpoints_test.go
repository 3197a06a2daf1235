package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// served is a server of each address of the program, of all that it can serve. There is no
// store behind it: what a route answers is no matter here.
var served = sync.OnceValues(func() ([2]http.Handler, error) {
	return bareServer()
})

// bareServer puts the routes together as `layers api` and `layers indexer` do.
func bareServer() (handlers [2]http.Handler, err error) {
	p := &parts{logger: slog.New(slog.DiscardHandler)}
	p.cfg.Listen, p.cfg.MetricsListen, p.cfg.AdminToken = "127.0.0.1:0", "127.0.0.1:0", strings.Repeat("x", shortestToken)
	p.cfg.PublicURL = "http://localhost"
	if p.catalog, err = loadCatalog(p.cfg); err != nil {
		return handlers, err
	}
	// Nothing listens there, and nothing is asked of it before a request.
	if p.pool, err = pgxpool.New(context.Background(), "postgres://127.0.0.1:1/none?connect_timeout=1"); err != nil {
		return handlers, err
	}
	operated, err := p.admin(context.Background())
	if err != nil {
		return handlers, err
	}
	server, err := p.server(p.queries(), operated)
	if err != nil {
		return handlers, err
	}
	handlers[0], handlers[1] = server.Handlers()
	return handlers, server.Close()
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// endpoints tells whether a path is one of ours, whichever address has it. Documents
// leave /api/v1 out where that is clear.
func endpoints(t *testing.T) func(method, path string) bool {
	t.Helper()
	handlers, err := served()
	require.NoError(t, err)
	there := func(method, path string) bool {
		for _, h := range handlers {
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, httptest.NewRequest(method, path, nil))
			body, _ := io.ReadAll(recorder.Body)
			missing := recorder.Code == http.StatusNotFound && (strings.Contains(string(body), "no such path") || strings.Contains(string(body), "404 page not found"))
			if !missing && recorder.Code != http.StatusMethodNotAllowed {
				return true
			}
		}
		return false
	}
	recorder := httptest.NewRecorder()
	handlers[0].ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	require.Equal(t, http.StatusOK, recorder.Code)
	described := recorder.Body.String()
	return func(method, path string) bool {
		path, _, _ = strings.Cut(path, "?")
		if method == "" && (strings.Contains(described, `"`+path+"/") || strings.Contains(described, path+`":`)) {
			return true // the beginning of several, or the end of one
		}
		path = strings.NewReplacer("{type}", "corpora", "{nsid}", "pub.layers.corpus.getCorpus", "{id}", "1", "{did}", "did:web:a.example").Replace(path)
		path = placeholder.ReplaceAllString(path, "at%3A%2F%2Fdid%3Aweb%3Aa.example%2Fpub.layers.corpus.corpus%2Fa")
		for _, prefix := range []string{"", "/api/v1", "/api/v1/admin"} {
			if method != "" && there(method, prefix+path) || method == "" && (there(http.MethodGet, prefix+path) || there(http.MethodPost, prefix+path)) {
				return true
			}
		}
		return false
	}
}
