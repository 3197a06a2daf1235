package graph_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
)

// proxy stands between a client and the real server and goes away when told to,
// or when so many more bytes have been sent to the server.
type proxy struct {
	listener net.Listener
	target   string
	left     atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

const unlimited = int64(1) << 60

// between is a client that reaches the server through a proxy.
func between(t *testing.T, cfg graph.Config) (*graph.Client, *proxy) {
	t.Helper()
	target, err := url.Parse(cfg.URL)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, target: target.Host}
	p.left.Store(unlimited)
	t.Cleanup(p.stop)
	go p.serve()
	target.Host = listener.Addr().String()
	cfg.URL = target.String()
	return graphtest.Open(t, cfg), p
}

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.left.Load() <= 0 {
			_ = in.Close()
			continue
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		go func() {
			defer in.Close()
			defer out.Close()
			_, _ = io.Copy(p.counted(out), in)
		}()
		go func() { _, _ = io.Copy(in, out) }()
	}
}

// counted passes bytes on until none are left.
func (p *proxy) counted(out io.Writer) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		if p.left.Add(-int64(len(b))) < 0 {
			return 0, io.ErrShortWrite
		}
		return out.Write(b)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *proxy) stop() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}

func TestUnreachableServerIsRetryable(t *testing.T) {
	t.Parallel()
	away := graphtest.Open(t, graph.Config{URL: "bolt://127.0.0.1:1"})
	require.Error(t, away.Ping(t.Context()))
	require.Error(t, away.Ensure(t.Context()))
	require.Error(t, away.Scan(t.Context(), nil))
	got := failures(t, away.Write(t.Context(), []graph.Subgraph{subgraph("a", 1), subgraph("b", 1)}))
	require.Len(t, got, 2)
	for _, f := range got {
		require.True(t, f.Retryable, "%v", f.Err)
	}
}

func TestSilentServerEndsWithTheContext(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	client := graphtest.Open(t, graph.Config{URL: "bolt://" + listener.Addr().String()})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	got := failures(t, client.Write(ctx, []graph.Subgraph{subgraph("a", 1)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable, "%v", got[0].Err)
	require.Error(t, client.Ping(ctx))
}

func TestMissingDatabaseIsRetryable(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	cfg.Database = "missing" // like a wrong password, this refuses every write for no fault of its own
	client := graphtest.Open(t, cfg)
	require.Error(t, client.Ping(t.Context()))
	got := failures(t, client.Write(t.Context(), []graph.Subgraph{subgraph("a", 1)}))
	require.True(t, got[0].Retryable, "%v", got[0].Err)
}

func TestPing(t *testing.T) {
	t.Parallel()
	client, p := between(t, graphtest.Config(t))
	require.NoError(t, client.Ping(t.Context()))
	p.stop()
	require.Error(t, client.Ping(t.Context()))
}

func TestOpenRefusesWrongConfiguration(t *testing.T) {
	t.Parallel()
	for _, cfg := range []graph.Config{{}, {URL: "localhost:7687"}, {URL: "http://localhost:7687"}, {URL: "bolt://localhost", Space: "a/b"}} {
		_, err := graph.Open(cfg)
		require.Error(t, err, "%+v", cfg)
	}
}

// A server that goes away in the middle of a write: what Write reported as
// written is there, and trying the rest again completes it.
func TestServerStoppedWhileWriting(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	direct := graphtest.Open(t, cfg)
	require.NoError(t, direct.Ensure(t.Context()))
	var all []graph.Subgraph
	for i := range 30 {
		all = append(all, layerOf("r"+strings.Repeat("x", i), int64(i+1), 1000))
	}
	rest := all
	for cut := int64(200_000); len(rest) > 0; cut *= 2 {
		client, p := between(t, cfg)
		p.left.Store(cut)
		err := client.Write(t.Context(), rest)
		if err == nil {
			rest = nil
			break
		}
		failed := map[string]bool{}
		for _, f := range failures(t, err) {
			require.True(t, f.Retryable, "%v", f.Err)
			failed[f.Key.String()] = true
		}
		there := scan(t, direct)
		var again []graph.Subgraph
		for _, s := range rest {
			if failed[s.Key.String()] {
				again = append(again, s)
			} else {
				require.Equal(t, s.Version, there[s.Key.String()])
			}
		}
		rest = again
	}
	for _, s := range all {
		require.Equal(t, s.Edges, byOrdinal(edges(t, direct, string(s.Key.Rkey))))
	}
}

// A write of many transactions that is cut off anywhere is as if it had not
// been, for whoever writes next.
func TestLargeWriteThatBreaksOff(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	direct := graphtest.Open(t, cfg)
	require.NoError(t, direct.Ensure(t.Context()))
	write(t, direct, layerOf("a", 1, 7000))
	broken := layerOf("a", 100, 11_000) // some 2 MB on the wire
	partly := 0
	for i, next := range []graph.Subgraph{
		layerOf("a", 1, 7000), layerOf("a", 2, 9000), layerOf("a", 3, 4), edgeSet("a", 4, 6000), deletion("a", 5), layerOf("a", 6, 8000),
	} {
		for part := range int64(3) {
			client, p := between(t, cfg)
			p.left.Store(2000 + part*500_000 + int64(i)*40_000)
			got := failures(t, client.Write(t.Context(), []graph.Subgraph{broken}))
			require.True(t, got[0].Retryable, "%v", got[0].Err)
			if n := len(get(t, direct, "a").Edges); n > 0 && n < len(broken.Edges) {
				partly++
			}
		}
		write(t, direct, next)
		stored := get(t, direct, "a")
		require.Equal(t, next.Version, stored.Version)
		require.Equal(t, next.Deleted, stored.Dangling)
		require.Equal(t, next.Edges, byOrdinal(edges(t, direct, "a")))
	}
	require.Positive(t, partly, "no write was cut off between its transactions")
}
