package appview

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestEveryAnswerIsGuarded(t *testing.T) {
	t.Parallel()
	b := start(t, Config{PublicURL: "https://layers.example"}, notFound)
	asked := map[string]string{
		"/": "GET", "/health": "GET", "/ready": "HEAD", "/xrpc/_health": "GET", "/.well-known/did.json": "GET", "/robots.txt": "GET",
		aGet: "GET", "/xrpc/pub.layers.corpus.getCorpus": "POST", "/nothing": "GET", "/xrpc/com.example.unknown": "OPTIONS",
	}
	for path, method := range asked {
		got := b.do(t, method, path)
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": answerPolicy, "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Strict-Transport-Security": hstsAge,
		} {
			require.Equal(t, want, got.header.Get(name), "%s %s: %s", method, path, name)
		}
		require.Empty(t, got.header.Get("Server"))
	}
	plain := start(t, Config{PublicURL: "http://layers.example"}, notFound)
	require.Empty(t, plain.do(t, "GET", "/health").header.Get("Strict-Transport-Security"), "it is not reached by TLS")

	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/nothing"} {
		got := request(t, "GET", "http://"+b.MetricsAddr()+path, nil, "Origin", "https://tool.example")
		require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"), path)
		require.Equal(t, "no-store", got.header.Get("Cache-Control"), path)
		require.Empty(t, got.header.Get("Access-Control-Allow-Origin"), path)
	}
	require.Equal(t, "layers", request(t, "GET", "http://"+b.MetricsAddr()+"/debug/pprof/cmdline", nil).body)
}

func TestOnlyListedOriginsMayRead(t *testing.T) {
	t.Parallel()
	const listed, other = "https://tool.example", "https://tool.example.evil.example"
	allowed := func(b *bundle, origin string) string {
		preflight := b.do(t, "OPTIONS", aGet, "Origin", origin, "Access-Control-Request-Method", "GET")
		require.Equal(t, http.StatusNoContent, preflight.status)
		got := b.do(t, "GET", aGet, "Origin", origin)
		require.Equal(t, preflight.header.Get("Access-Control-Allow-Origin"), got.header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, got.header.Get("Access-Control-Allow-Credentials"))
		require.Contains(t, got.header.Values("Vary"), "Origin", "or a shared cache gives one's answer to another")
		require.NotContains(t, preflight.header.Get("Access-Control-Allow-Methods"), "POST")
		return got.header.Get("Access-Control-Allow-Origin")
	}
	b := start(t, Config{Origins: []string{listed, "http://localhost:8080"}}, notFound)
	require.Equal(t, listed, allowed(b, listed))
	require.Equal(t, "http://localhost:8080", allowed(b, "http://localhost:8080"))
	for _, origin := range []string{other, "http://tool.example", "https://tool.example:444", "null", "*", "https://a.tool.example"} {
		require.Empty(t, allowed(b, origin), origin)
	}
	none := start(t, Config{Origins: []string{"none"}}, notFound)
	require.Empty(t, allowed(none, listed))
	require.Equal(t, "*", allowed(start(t, Config{}, notFound), other))
}

// TestWhoSendsSlowlyIsCutOff opens connections that say no more than the beginning of a
// request, and waits for the server to end them.
func TestWhoSendsSlowlyIsCutOff(t *testing.T) {
	t.Parallel()
	server, err := New(Config{Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0"}, Deps{Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	for _, s := range []*http.Server{server.public, server.metrics} {
		require.LessOrEqual(t, s.ReadHeaderTimeout, 10*time.Second)
		require.LessOrEqual(t, s.ReadTimeout, 30*time.Second)
		require.Positive(t, s.ReadHeaderTimeout*s.ReadTimeout*s.IdleTimeout)
		s.ReadHeaderTimeout, s.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond
	}
	go func() { _ = server.Run(t.Context()) }()
	t.Cleanup(func() { _ = server.Close() })
	for name, sent := range map[string]string{
		"nothing": "", "half a header": "GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ", "half a body": "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
	} {
		for _, address := range []string{server.Addr(), server.MetricsAddr()} {
			conn, err := net.Dial("tcp", address)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err = fmt.Fprint(conn, sent)
			require.NoError(t, err)
			_, err = bufio.NewReader(conn).WriteTo(&strings.Builder{}) // until the server ends it
			var late net.Error
			require.False(t, errors.As(err, &late) && late.Timeout(), "%s: it is still open", name)
		}
	}
}

func TestTooLargeRequestsAreRefused(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	got := b.do(t, "GET", "/health", "X-Large", strings.Repeat("x", 2*maxHeaderBytes))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, got.status)
	got = request(t, "POST", "http://"+b.Addr()+aGet, strings.NewReader(strings.Repeat("x", 100<<10)))
	require.Equal(t, http.StatusRequestEntityTooLarge, got.status)
	got = b.do(t, "GET", aGet+"&x="+strings.Repeat("x", 2*maxHeaderBytes))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, got.status)
}
