package graph_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
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
	hold     chan struct{} // where set, nothing is cut off but held back until it closes

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
			if p.hold == nil {
				return 0, io.ErrShortWrite
			}
			<-p.hold
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
	// Bytes on the wire: for cutting a write off while it deletes, and after the
	// first new edges are committed.
	deleting := []int64{3000, 4000, 5000, 6000, 7000, 8000}
	layerMaking, setMaking := []int64{2_500_000}, []int64{6_000_000}
	for i, c := range []struct {
		before, broken, after graph.Subgraph
		cuts                  []int64
	}{
		{layerOf("a", 1, 6000), edgeSet("a", 9, 12_000), subgraph("a", 2), deleting},
		{edgeSet("a", 1, 6000), layerOf("a", 9, 20_000), subgraph("a", 2), deleting},
		{layerOf("a", 1, 6000), layerOf("a", 9, 20_000), layerOf("a", 1, 6000), deleting}, // the same again, though it had been there
		{layerOf("a", 1, 10), edgeSet("a", 9, 12_000), subgraph("a", 2), setMaking},
		{edgeSet("a", 1, 10), layerOf("a", 9, 20_000), deletion("a", 2), layerMaking},
		{deletion("a", 1), layerOf("a", 9, 20_000), edgeSet("a", 2, 6000), layerMaking},
		{subgraph("b", 1), layerOf("a", 9, 20_000), subgraph("a", 2), layerMaking}, // a is new
	} {
		write(t, direct, c.before)
		before := len(c.before.Edges)
		n := 0
		for _, cut := range c.cuts {
			client, p := between(t, cfg)
			p.left.Store(cut)
			got := failures(t, client.Write(t.Context(), []graph.Subgraph{c.broken}))
			require.True(t, got[0].Retryable, "%v", got[0].Err)
			if n = totalEdges(t, cfg); n > 0 && n != before {
				break
			}
		}
		require.NotEqual(t, before, n, "case %d was not cut off in the middle", i)
		require.NotZero(t, n, "case %d was not cut off in the middle", i)
		require.NotEqualValues(t, 9, get(t, direct, "a").Version)
		if i == 6 {
			require.True(t, get(t, direct, "a").Dangling)
		}

		write(t, direct, c.after)
		stored := get(t, direct, "a")
		require.Equal(t, c.after.Version, stored.Version)
		require.Equal(t, c.after.Deleted, stored.Dangling)
		require.Equal(t, c.after.Edges, byOrdinal(edges(t, direct, "a")))
		write(t, direct, deletion("b", 2))
		require.Equal(t, len(c.after.Edges), totalEdges(t, cfg), "case %d left edges behind", i)
		require.NoError(t, direct.Wipe(t.Context()))
	}
}

// Of two writers of one large record, the one that comes later takes over.
func TestLargeWriteIsOvertaken(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	require.NoError(t, graphtest.Open(t, cfg).Ensure(t.Context()))
	slow, slowly := between(t, cfg)
	quick, quickly := between(t, cfg)
	require.NoError(t, quick.Ping(t.Context())) // connects
	slowly.hold = make(chan struct{})
	slowly.left.Store(500_000) // in the first of four transactions with edges
	var slowErr, quickErr error
	var wg sync.WaitGroup
	wg.Go(func() { slowErr = slow.Write(t.Context(), []graph.Subgraph{edgeSet("a", 1, 20_000)}) })
	waitFor(t, func() bool { return slowly.left.Load() < 0 })
	start := quickly.left.Load()
	wg.Go(func() { quickErr = quick.Write(t.Context(), []graph.Subgraph{layerOf("a", 2, 12_000)}) })
	waitFor(t, func() bool { return start-quickly.left.Load() > 300 }) // it waits for the node's lock
	close(slowly.hold)
	wg.Wait()
	require.NoError(t, quickErr)
	require.ErrorContains(t, slowErr, "another writer")
	require.True(t, failures(t, slowErr)[0].Retryable)
	require.EqualValues(t, 2, get(t, quick, "a").Version)
	require.Equal(t, 12_000, totalEdges(t, cfg))
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	require.Eventually(t, done, time.Minute, time.Millisecond)
}

// totalEdges is the number of all edges in a space, whether a record knows of them or not.
func totalEdges(t *testing.T, cfg graph.Config) int {
	t.Helper()
	return int(query(t, cfg, "MATCH (n)-[e]->() WHERE n.key STARTS WITH $space RETURN count(e)"))
}

// query runs a statement that returns one number, past the package under test.
func query(t *testing.T, cfg graph.Config, cypher string) int64 {
	t.Helper()
	auth := neo4j.NoAuth()
	if cfg.User != "" {
		auth = neo4j.BasicAuth(cfg.User, cfg.Password, "")
	}
	driver, err := neo4j.NewDriverWithContext(cfg.URL, auth)
	require.NoError(t, err)
	defer driver.Close(t.Context())
	result, err := neo4j.ExecuteQuery(t.Context(), driver, cypher, map[string]any{"space": "~" + cfg.Space + "/"}, neo4j.EagerResultTransformer)
	require.NoError(t, err)
	n, ok := result.Records[0].Values[0].(int64)
	require.True(t, ok)
	return n
}

// Deadlines that pass in the middle of a write must not use up the connections.
func TestDeadlinesDoNotLeakConnections(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	var all []graph.Subgraph
	for i := range 300 {
		all = append(all, layerOf(fmt.Sprint("r", i), 1, 10))
	}
	for i := range 60 { // the pool has 16
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		_ = client.Write(ctx, all)
		cancel()
	}
	write(t, client, all...)
	require.Len(t, scan(t, client), 300)
}
