package rest

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

// detour is a way to the database that can be closed. It returns the URL that leads by it.
func detour(t *testing.T, database string) (address string, cut func()) {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	host := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", host)
			if err != nil {
				_ = from.Close()
				continue
			}
			mu.Lock()
			open = append(open, from, to)
			mu.Unlock()
			go func() { _, _ = io.Copy(to, from) }()
			go func() { _, _ = io.Copy(from, to) }()
		}
	}()
	cut = func() {
		_ = listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	}
	t.Cleanup(cut)
	u.Host = listener.Addr().String()
	return u.String(), cut
}

// With PostgreSQL away, every endpoint is 503 and says when to come back.
func TestEveryEndpointSaysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, cut := detour(t, w.db.URL)
	pool, err := store.Open(t.Context(), store.Config{URL: address, ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	w.serve(pool)
	cut()
	for _, r := range w.rest.Routes() {
		target, query := Prefix+r.Path, url.Values{}
		for _, p := range r.Params {
			switch {
			case p.InPath:
				target = strings.Replace(target, "{"+p.Name+"}", url.PathEscape(p.Example), 1)
			case p.Required:
				query.Set(p.Name, p.Example)
			}
		}
		got := w.ask(t, target+"?"+query.Encode())
		require.Equal(t, http.StatusServiceUnavailable, got.status, "%s: %s", target, got.body)
		require.NotEmpty(t, got.header.Get("Retry-After"), target)
		require.Contains(t, string(got.body), `"requestId":"request-1"`)
	}
}
