package appview

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// faulty is a store that does to every read what a test wants.
type faulty struct {
	read func(context.Context) error
}

func (f faulty) Get(ctx context.Context, _ record.Key) (record.Record, error) {
	return record.Record{}, f.read(ctx)
}

func (f faulty) List(ctx context.Context, _ store.Query) (store.Page, error) {
	return store.Page{}, f.read(ctx)
}

func (f faulty) ListForeign(ctx context.Context, _ store.ForeignQuery) (store.Page, error) {
	return store.Page{}, f.read(ctx)
}

func (f faulty) ResolveHandle(ctx context.Context, _ syntax.Handle) (syntax.DID, error) {
	return "", f.read(ctx)
}

// hang waits as a store does that no longer answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

const aGet = "/xrpc/pub.layers.corpus.getCorpus?uri=at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/a"

// logBuffer collects a server's log; it may be read while the server writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// bundle is a server that runs until the test ends.
type bundle struct {
	*Server
	log  *logBuffer
	stop context.CancelFunc
	done <-chan error // gives what Run returned
}

func start(t *testing.T, cfg Config, read func(context.Context) error, checks ...Check) *bundle {
	t.Helper()
	return startOn(t, cfg, faulty{read}, checks...)
}

type reader interface {
	Get(context.Context, record.Key) (record.Record, error)
	List(context.Context, store.Query) (store.Page, error)
	ListForeign(context.Context, store.ForeignQuery) (store.Page, error)
	ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error)
}

func startOn(t *testing.T, cfg Config, reads reader, checks ...Check) *bundle {
	t.Helper()
	return startWith(t, cfg, reads, Deps{Checks: checks})
}

func startWith(t *testing.T, cfg Config, reads reader, deps Deps) *bundle {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	cfg.Listen, cfg.MetricsListen = "127.0.0.1:0", "127.0.0.1:0"
	log := &logBuffer{}
	deps.XRPC, deps.Metrics, deps.Logger = xrpc.New(c, reads, nil), prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(log, nil))
	server, err := New(cfg, deps)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		_ = server.Close()
	})
	return &bundle{Server: server, log: log, stop: stop, done: done}
}

// answer is a whole HTTP answer.
type answer struct {
	status int
	header http.Header
	body   string
}

// errorName is the "error" of an XRPC error body.
func (a answer) errorName(t *testing.T) string {
	t.Helper()
	var body struct{ Error, Message string }
	require.NoError(t, json.Unmarshal([]byte(a.body), &body), a.body)
	require.NotEmpty(t, body.Message)
	return body.Error
}

func (b *bundle) do(t *testing.T, method, path string, header ...string) answer {
	t.Helper()
	return request(t, method, "http://"+b.Addr()+path, nil, header...)
}

func request(t *testing.T, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

func notFound(context.Context) error { return store.ErrNotFound }

func TestWhatEveryServerAnswers(t *testing.T) {
	t.Parallel()
	b := start(t, Config{PublicURL: "https://layers.example:8443/", Version: "1.2.3"}, notFound)

	require.JSONEq(t, `{"status":"ok"}`, b.do(t, "GET", "/health").body)
	require.JSONEq(t, `{"status":"ready"}`, b.do(t, "GET", "/ready").body)
	require.JSONEq(t, `{"version":"1.2.3"}`, b.do(t, "GET", "/xrpc/_health").body)
	require.JSONEq(t, `{
		"@context": ["https://www.w3.org/ns/did/v1"],
		"id": "did:web:layers.example%3A8443",
		"service": [{"id": "#layers_appview", "type": "LayersAppView", "serviceEndpoint": "https://layers.example:8443"}]
	}`, b.do(t, "GET", "/.well-known/did.json").body)
	landing := b.do(t, "GET", "/").body
	require.Contains(t, landing, "https://layers.example:8443/xrpc/pub.layers.corpus.listCorpora\n")
	require.Contains(t, landing, "/xrpc/_health")
	require.NotContains(t, landing, "applyLens", "named as answered, though it is not implemented")
	require.Contains(t, b.do(t, "GET", "/robots.txt").body, "Disallow")

	for _, path := range []string{"/", "/health", "/ready", "/xrpc/_health", "/.well-known/did.json"} {
		head := b.do(t, "HEAD", path)
		require.Equal(t, http.StatusOK, head.status, path)
		require.Empty(t, head.body, path)
	}
}

func TestAServerWithoutQueriesAnswersProbes(t *testing.T) {
	t.Parallel()
	server, err := New(Config{Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0"},
		Deps{Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	for path, status := range map[string]int{"/health": 200, "/ready": 200, "/": 404, "/xrpc/_health": 404, "/xrpc/com.example.do": 404} {
		require.Equal(t, status, request(t, "GET", "http://"+server.Addr()+path, nil).status, path)
	}
	require.Equal(t, 200, request(t, "GET", "http://"+server.MetricsAddr()+"/metrics", nil).status)
	stop()
	require.NoError(t, <-done)
}

func TestDIDDocumentOfAServerWithoutPublicURL(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	_, port, _ := strings.Cut(b.Addr(), ":")
	require.Contains(t, b.do(t, "GET", "/.well-known/did.json").body, `"did:web:localhost%3A`+port+`"`)
}

func TestNewRefusesAPublicURLThatIsNoOrigin(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"layers.example", "ftp://layers.example", "https://", "https://layers.example/path", "https://u:p@layers.example", "https://a?b", "://"} {
		_, err := newIdentity(u, "127.0.0.1:1")
		require.ErrorContains(t, err, "public URL", u)
	}
}

func TestPathsThatDoNotExist(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	for _, path := range []string{"/nothing", "/xrpc", "/xrpc/", "/xrpc/pub.layers.corpus.getCorpus/more", "/metrics", "/debug/pprof/"} {
		got := b.do(t, "GET", path)
		require.Equal(t, http.StatusNotFound, got.status, path)
		require.Equal(t, "NotFound", got.errorName(t), path)
	}
	got := b.do(t, "POST", "/health")
	require.Equal(t, http.StatusMethodNotAllowed, got.status)
	require.Equal(t, "InvalidRequest", got.errorName(t))
}

func TestRequestIDsAreKeptIfSaneAndMadeOtherwise(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	require.Equal(t, "abc-1.2_Z", b.do(t, "GET", "/health", "X-Request-Id", "abc-1.2_Z").header.Get("X-Request-Id"))
	require.Contains(t, b.log.String(), `"requestId":"abc-1.2_Z"`)
	seen := map[string]bool{}
	for _, insane := range []string{"", strings.Repeat("a", 65), "a b", `a"b`, "ü"} {
		id := b.do(t, "GET", "/nothing", "X-Request-Id", insane).header.Get("X-Request-Id")
		require.True(t, saneRequestID(id), "%q", id)
		require.False(t, seen[id], "the same id twice")
		seen[id] = true
	}
}

func TestBrowsersMayAskFromAnywhere(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	got := b.do(t, "OPTIONS", aGet, "Origin", "https://tool.example", "Access-Control-Request-Method", "GET",
		"Access-Control-Request-Headers", "authorization,atproto-accept-labelers")
	require.Equal(t, http.StatusNoContent, got.status)
	require.Equal(t, "*", got.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, got.header.Get("Access-Control-Allow-Methods"), "GET")
	require.Contains(t, got.header.Get("Access-Control-Allow-Headers"), "Authorization")
	require.Contains(t, got.header.Get("Access-Control-Allow-Headers"), "Atproto-Accept-Labelers")
	got = b.do(t, "GET", aGet, "Origin", "https://tool.example")
	require.Equal(t, "*", got.header.Get("Access-Control-Allow-Origin"), "an error must be readable too")
	require.Contains(t, got.header.Get("Access-Control-Expose-Headers"), "X-Request-Id")
}

func TestAHangingStoreIsAnsweredFor(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]error{
		"the context's own error": nil,
		"words of the store's":    errors.New("canceling statement due to user request"),
	} {
		ended := make(chan error, 1)
		b := start(t, Config{RequestTimeout: 20 * time.Millisecond}, func(ctx context.Context) error {
			err := hang(ctx)
			ended <- err
			return cmp.Or(told, err)
		})
		got := b.do(t, "GET", aGet)
		require.Equal(t, http.StatusServiceUnavailable, got.status, name)
		require.Equal(t, "ServiceUnavailable", got.errorName(t), name)
		require.NotEmpty(t, got.header.Get("Retry-After"), name)
		require.ErrorIs(t, <-ended, context.DeadlineExceeded, "the store's call is still running")
	}
}

func TestFaultsOfOursAreLoggedAndNotShown(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errors.New("secret detail") },
		"panic": func(context.Context) error { panic("secret detail") },
	} {
		b := start(t, Config{}, read)
		got := b.do(t, "GET", aGet, "X-Request-Id", "find-me")
		require.Equal(t, http.StatusInternalServerError, got.status, name)
		require.Equal(t, "InternalServerError", got.errorName(t), name)
		require.NotContains(t, got.body, "secret", name)
		var logged struct{ Msg, RequestID, Error string }
		line, _, _ := strings.Cut(b.log.String()[strings.Index(b.log.String(), `{"time"`):], "\n")
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, "request failed") {
				require.NoError(t, json.Unmarshal([]byte(line), &logged))
			}
		}
		require.Equal(t, "find-me", logged.RequestID, "%s: %s", name, line)
		require.Contains(t, logged.Error, "secret detail", name)
	}
}

func TestAccessLogHasWhatAnOperatorNeeds(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	b.do(t, "GET", aGet, "X-Request-Id", "one")
	var line struct {
		Msg, Method, Route, RequestID, Client string
		Status                                int
		Bytes, Duration                       int64
	}
	for text := range strings.Lines(b.log.String()) {
		if strings.Contains(text, `"requestId":"one"`) {
			require.NoError(t, json.Unmarshal([]byte(text), &line))
		}
	}
	require.Equal(t, "request", line.Msg)
	require.Equal(t, "GET", line.Method)
	require.Equal(t, "pub.layers.corpus.getCorpus", line.Route)
	require.Equal(t, http.StatusBadRequest, line.Status)
	require.Equal(t, "127.0.0.1", line.Client)
	require.Positive(t, line.Bytes)
	require.Positive(t, line.Duration)
}

func TestMetricsHaveTheirOwnAddressAndBoundedLabels(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	b.do(t, "GET", aGet)
	b.do(t, "GET", "/xrpc/com.example.unknown")
	b.do(t, "GET", "/made/up/by/a/client")
	b.do(t, "BREW", "/health")
	got := request(t, "GET", "http://"+b.MetricsAddr()+"/metrics", nil).body
	for _, line := range []string{
		`layers_http_requests_total{method="GET",route="pub.layers.corpus.getCorpus",status="400"} 1`,
		`layers_http_requests_total{method="GET",route="unknown",status="501"} 1`,
		`layers_http_requests_total{method="GET",route="unknown",status="404"} 1`,
		`layers_http_requests_total{method="other",route="/health",status="405"} 1`,
		`layers_http_request_duration_seconds_count{method="GET",route="pub.layers.corpus.getCorpus"} 1`,
		`layers_http_requests_in_flight 0`,
	} {
		require.Contains(t, got, line+"\n")
	}
	require.NotContains(t, got, "com.example")
	require.NotContains(t, got, "BREW")
	require.Equal(t, http.StatusOK, request(t, "GET", "http://"+b.MetricsAddr()+"/debug/pprof/goroutine?debug=1", nil).status)
}

// holding is a store that has one record under every key.
type holding struct {
	faulty
	value string
}

func (h holding) Get(_ context.Context, key record.Key) (record.Record, error) {
	return record.Record{Key: key, CID: "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", Value: json.RawMessage(h.value)}, nil
}

func TestLargeAnswersAreCompressedForWhoeverTakesThem(t *testing.T) {
	t.Parallel()
	large := `{"text": "<` + strings.Repeat("a\\u0000 ", 2000) + `>"}`
	b := startOn(t, Config{}, holding{value: large})
	plain := b.do(t, "GET", aGet, "Accept-Encoding", "identity")
	require.Empty(t, plain.header.Get("Content-Encoding"))
	require.Contains(t, plain.body, `"value":`+large+`}`)

	packed := b.do(t, "GET", aGet, "Accept-Encoding", "gzip")
	require.Equal(t, "gzip", packed.header.Get("Content-Encoding"))
	require.Contains(t, packed.header.Values("Vary"), "Accept-Encoding")
	require.Less(t, len(packed.body), len(large)/4)
	unpacked, err := gzip.NewReader(strings.NewReader(packed.body))
	require.NoError(t, err)
	text, err := io.ReadAll(unpacked)
	require.NoError(t, err)
	require.Equal(t, plain.body, string(text))

	unchanged := b.do(t, "GET", aGet, "Accept-Encoding", "gzip", "If-None-Match", packed.header.Get("ETag"))
	require.Equal(t, http.StatusNotModified, unchanged.status)
	require.Empty(t, unchanged.body)

	small := startOn(t, Config{}, holding{value: `{}`}).do(t, "GET", aGet, "Accept-Encoding", "gzip")
	require.Empty(t, small.header.Get("Content-Encoding"), "not worth it")
	require.Equal(t, strconv.Itoa(len(small.body)), small.header.Get("Content-Length"))
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound)
	got := request(t, "POST", "http://"+b.Addr()+"/xrpc/pub.layers.corpus.getCorpus", strings.NewReader(strings.Repeat("x", 100_000)))
	require.Equal(t, http.StatusRequestEntityTooLarge, got.status)
	require.Equal(t, "PayloadTooLarge", got.errorName(t))
}

func TestReadyNamesWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound,
		Check{Name: "postgresql", Ping: func(context.Context) error { return errors.New("dial tcp 10.0.0.7:5432: password=hunter2") }},
		Check{Name: "elasticsearch", Ping: func(context.Context) error { return context.DeadlineExceeded }},
		Check{Name: "neo4j", Ping: func(context.Context) error { return nil }})
	got := b.do(t, "GET", "/ready")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.JSONEq(t, `{"status":"unready","failing":{"postgresql":"unreachable","elasticsearch":"no answer in time"}}`, got.body)
	require.Contains(t, b.log.String(), "hunter2", "the operator needs the reason")
	require.Equal(t, http.StatusOK, b.do(t, "GET", "/health").status, "the process itself is well")
}

func TestReadyNamesWhatItDoesWithout(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound,
		Check{Name: "postgresql", Ping: func(context.Context) error { return nil }},
		Check{Name: "neo4j", Optional: true, Ping: func(context.Context) error { return errors.New("away") }})
	got := b.do(t, "GET", "/ready")
	require.Equal(t, http.StatusOK, got.status)
	require.JSONEq(t, `{"status":"ready","degraded":{"neo4j":"unreachable"}}`, got.body)
}

func TestReadyNamesWhatIsBeingFilled(t *testing.T) {
	t.Parallel()
	b := start(t, Config{}, notFound,
		Check{Name: "graph", Ping: func(context.Context) error { return nil }},
		Check{Name: "search", Ping: func(context.Context) error { return fmt.Errorf("fulltext: %w", ErrFilling) }})
	got := b.do(t, "GET", "/ready")
	require.Equal(t, http.StatusOK, got.status)
	require.JSONEq(t, `{"status":"ready","incomplete":{"search":"being filled"}}`, got.body)
}

func TestReadinessIsReusedForASecond(t *testing.T) {
	t.Parallel()
	var pings int
	r := newReadiness([]Check{{Name: "store", Ping: func(context.Context) error { pings++; return errors.New("down") }}}, slog.New(slog.DiscardHandler))
	now := time.Unix(1000, 0)
	r.now = func() time.Time { return now }
	for range 5 {
		require.Len(t, r.look().failing, 1)
	}
	require.Equal(t, 1, pings)
	now = now.Add(readyFor)
	r.look()
	require.Equal(t, 2, pings)
}

func TestDrainingEndsReadinessFirstAndLosesNoRequest(t *testing.T) {
	t.Parallel()
	reading, release := make(chan struct{}), make(chan struct{})
	b := start(t, Config{DrainDelay: time.Hour}, func(context.Context) error {
		close(reading)
		<-release
		return store.ErrNotFound
	})
	require.Equal(t, http.StatusOK, b.do(t, "GET", "/ready").status)

	inFlight := make(chan int, 1)
	go func() {
		res, err := http.Get("http://" + b.Addr() + aGet)
		if err != nil {
			inFlight <- 0
			return
		}
		_ = res.Body.Close()
		inFlight <- res.StatusCode
	}()
	<-reading
	b.stop()
	require.Eventually(t, func() bool { return b.draining.Load() }, 10*time.Second, time.Millisecond)
	got := b.do(t, "GET", "/ready")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.JSONEq(t, `{"status":"draining"}`, got.body)
	require.Equal(t, http.StatusOK, b.do(t, "GET", "/health").status, "still served during the delay")
	close(release)
	require.Equal(t, http.StatusBadRequest, <-inFlight)
}

func TestRunEndsWhenRequestsInFlightHave(t *testing.T) {
	t.Parallel()
	reading, release := make(chan struct{}), make(chan struct{})
	b := start(t, Config{}, func(context.Context) error {
		close(reading)
		<-release
		return store.ErrNotFound
	})
	inFlight := make(chan int, 1)
	go func() {
		res, err := http.Get("http://" + b.Addr() + aGet)
		if err != nil {
			inFlight <- 0
			return
		}
		_ = res.Body.Close()
		inFlight <- res.StatusCode
	}()
	<-reading
	b.stop()
	select {
	case err := <-b.done:
		t.Fatalf("Run returned %v with a request in flight", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	require.Equal(t, http.StatusBadRequest, <-inFlight)
	require.NoError(t, <-b.done)
	_, err := http.Get("http://" + b.Addr() + "/health")
	require.Error(t, err, "still listening after Run returned")
}

func TestRunGivesUpOnRequestsThatDoNotEnd(t *testing.T) {
	t.Parallel()
	reading := make(chan struct{})
	b := start(t, Config{ShutdownTimeout: time.Millisecond, RequestTimeout: time.Hour}, func(ctx context.Context) error {
		close(reading)
		return hang(ctx)
	})
	go func() { _, _ = http.Get("http://" + b.Addr() + aGet) }()
	<-reading
	b.stop()
	require.ErrorContains(t, <-b.done, "still in flight")
}

func TestClientAddressComesFromTrustedProxiesAlone(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, remote, forwarded, want string
		trusted                       []netip.Prefix
	}{
		{"no proxy configured", "10.0.0.1:1", "1.2.3.4", "10.0.0.1", nil},
		{"from a stranger", "9.9.9.9:1", "1.2.3.4", "9.9.9.9", proxies},
		{"through a proxy", "10.0.0.1:1", "1.2.3.4", "1.2.3.4", proxies},
		{"a client's own header in front", "10.0.0.1:1", "6.6.6.6, 1.2.3.4", "1.2.3.4", proxies},
		{"through two proxies", "10.0.0.1:1", "1.2.3.4, 10.0.0.2", "1.2.3.4", proxies},
		{"through IPv6", "[fd00::1]:1", "2001:db8::1", "2001:db8::1", proxies},
		{"loopback is not trusted by itself", "127.0.0.1:1", "1.2.3.4", "127.0.0.1", proxies},
	} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.RemoteAddr = c.remote
		req.Header.Set("X-Forwarded-For", c.forwarded)
		require.Equal(t, c.want, clientAddress(c.trusted)(req), c.name)
	}
}

func TestOverloadIsAnsweredAtOnceAndProbesAlways(t *testing.T) {
	t.Parallel()
	reading, release := make(chan struct{}, 64), make(chan struct{})
	b := start(t, Config{Concurrency: map[traffic.Group]int{traffic.Records: 1}, RequestTimeout: time.Hour}, func(context.Context) error {
		reading <- struct{}{}
		<-release
		return store.ErrNotFound
	})
	answered := make(chan int, 64)
	ask := func() {
		res, err := http.Get("http://" + b.Addr() + aGet)
		if err != nil {
			answered <- 0
			return
		}
		_ = res.Body.Close()
		answered <- res.StatusCode
	}
	go ask()
	<-reading
	for range 4 { // as many as may wait
		go ask()
	}
	metric := func() string { return request(t, "GET", "http://"+b.MetricsAddr()+"/metrics", nil).body }
	require.Eventually(t, func() bool { return strings.Contains(metric(), `layers_http_group_waiting{group="records"} 4`) }, time.Minute, time.Millisecond)

	got := b.do(t, "GET", aGet)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "ServiceUnavailable", got.errorName(t))
	require.Equal(t, "1", got.header.Get("Retry-After"))
	for _, path := range []string{"/health", "/ready", "/xrpc/_health", "/.well-known/did.json"} {
		require.Equal(t, http.StatusOK, b.do(t, "GET", path).status, path)
	}
	close(release)
	for range 5 {
		require.Contains(t, []int{http.StatusBadRequest, http.StatusServiceUnavailable}, <-answered) // a slow machine may have let some wait for too long
	}
	require.Contains(t, metric(), `layers_http_overload_refused_total{group="records"}`)
}
