package firehose

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

const patient = 30 * time.Second // a condition that has not come by then will not

// relay is a host whose sequence moves, and whose subscriptions a test may spoil.
type relay struct {
	t      *testing.T
	server *httptest.Server
	lost   func(*relay, subscription) // what becomes of a subscription in place of being served; nil serves all

	mu   sync.Mutex
	head int64
	subs []subscription
	open map[*websocket.Conn]bool
	news chan struct{} // closed when head moves
	ping atomic.Int64
}

type subscription struct {
	conn   *websocket.Conn
	nth    int
	cursor int64 // or none
}

func newRelay(t *testing.T, first int64, lost func(*relay, subscription)) *relay {
	r := &relay{t: t, lost: lost, head: first, open: map[*websocket.Conn]bool{}, news: make(chan struct{})}
	r.server = httptest.NewServer(r)
	t.Cleanup(func() { r.server.Close() })
	t.Cleanup(r.drop)
	return r
}

func (r *relay) url() string { return "ws" + strings.TrimPrefix(r.server.URL, "http") }

func (r *relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	s := subscription{cursor: none}
	if in.URL.Query().Has("cursor") {
		s.cursor, _ = strconv.ParseInt(in.URL.Query().Get("cursor"), 10, 64)
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, in, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		r.ping.Add(1)
		return answer(data)
	})
	s.conn = conn
	r.mu.Lock()
	s.nth = len(r.subs)
	r.subs = append(r.subs, s)
	r.open[conn] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.open, conn)
		r.mu.Unlock()
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _, _ = conn.ReadMessage() // answers pings until the client leaves
	}()
	if r.lost != nil {
		r.lost(r, s)
		<-gone
		return
	}
	r.serve(s, gone)
}

// serve sends what lies behind the cursor, and then what happens.
func (r *relay) serve(s subscription, gone <-chan struct{}) {
	for at := s.cursor; ; {
		r.mu.Lock()
		head, news := r.head, r.news
		r.mu.Unlock()
		if at == none {
			at = head
		}
		for ; at < head; at++ {
			send(s.conn, identityFrame(r.t, at+1))
		}
		select {
		case <-news:
		case <-gone:
			return
		}
	}
}

// position is the sequence number of the last event.
func (r *relay) position() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// move has n events happen.
func (r *relay) move(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.head += n
	close(r.news)
	r.news = make(chan struct{})
}

// pinged waits until a client has asked whether the host lives, or the test has ended.
func (r *relay) pinged() {
	for r.ping.Load() == 0 && r.t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// cursors are those of all subscriptions so far.
func (r *relay) cursors() (list []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		list = append(list, s.cursor)
	}
	return list
}

// drop cuts all connections.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		_ = conn.UnderlyingConn().Close()
	}
}

// follower runs a client and keeps what it delivers, and each host's cursor.
type follower struct {
	mu   sync.Mutex
	seqs map[string][]int64
	all  []Event
	hold func() // before each frame is taken
}

func follow(t *testing.T, cfg Config) *follower {
	t.Helper()
	f := &follower{hold: func() {}}
	f.run(t, cfg)
	return f
}

func (f *follower) run(t *testing.T, cfg Config) {
	t.Helper()
	cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, cmp.Or(cfg.MaxBackoff, 5*time.Millisecond)
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.seqs = map[string][]int64{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(cfg, nil).Run(ctx, f.cursor, f.take) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

func (f *follower) cursor(_ context.Context, host string) (int64, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seqs := f.seqs[host]; len(seqs) > 0 {
		return seqs[len(seqs)-1], true, nil
	}
	return 0, false, nil
}

func (f *follower) take(frame Frame) error {
	event, err := frame.Decode()
	f.mu.Lock()
	if err == nil && event.Seq > 0 {
		f.seqs[frame.Host] = append(f.seqs[frame.Host], event.Seq)
	}
	f.all = append(f.all, event)
	f.mu.Unlock()
	f.hold()
	return nil
}

func (f *follower) of(host string) []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]int64(nil), f.seqs[host]...)
}

func (f *follower) reaches(t *testing.T, host string, seq int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		got := f.of(host)
		return len(got) > 0 && got[len(got)-1] >= seq
	}, patient, 5*time.Millisecond, "event %d of %s was not delivered: %v", seq, host, f.of(host))
}

// counted sums a counter over its labels.
func counted(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// requireRow requires that the events came once each, none left out.
func requireRow(t *testing.T, got []int64, from, to int64) {
	t.Helper()
	var want []int64
	for seq := from; seq <= to; seq++ {
		want = append(want, seq)
	}
	require.Equal(t, want, got)
}

// TestStalledStreamIsReconnected has the first subscription go silent, though it
// answers pings, while the host's head moves on.
func TestStalledStreamIsReconnected(t *testing.T) {
	t.Parallel()
	r := newRelay(t, 3, func(r *relay, s subscription) {
		if s.nth > 0 {
			r.serve(s, nil)
			return
		}
		for seq := int64(1); seq <= 3; seq++ {
			send(s.conn, identityFrame(t, seq))
		}
		r.pinged() // well before it counts as quiet, or a probe would find the head where it was
		r.move(7)  // of which this subscription brings nothing: stalled
	})
	before := counted(t, "layers_firehose_stalls_total")
	f := follow(t, Config{Hosts: []string{r.url()}, Silence: 1500 * time.Millisecond, Quiet: 2 * time.Second, Probe: time.Second})
	f.reaches(t, r.url(), 3)
	f.reaches(t, r.url(), 10)
	requireRow(t, f.of(r.url()), 1, 10)
	require.Equal(t, []int64{0, 3, 3}, r.cursors()[:3], "a subscription, a probe behind its last event, and the next subscription")
	require.Greater(t, counted(t, "layers_firehose_stalls_total"), before)
}

// TestStallIsFoundWhereOlderEventsAreNotPlayedBack answers only subscriptions
// without a cursor, until the stall has been found.
func TestStallIsFoundWhereOlderEventsAreNotPlayedBack(t *testing.T) {
	t.Parallel()
	var live atomic.Bool
	r := newRelay(t, 3, func(r *relay, s subscription) {
		if s.cursor == none {
			live.Store(true)
			s.cursor = r.position() // before the event, which happens while it listens
			r.move(1)
		}
		if live.Load() {
			r.serve(s, nil)
		}
	})
	f := follow(t, Config{Hosts: []string{r.url()}, Quiet: 100 * time.Millisecond, Probe: time.Second})
	f.reaches(t, r.url(), 4)
	require.Equal(t, []int64{0, none, 0}, r.cursors()[:3])
}

// TestQuietHostIsLeftAlone asks a host that has no events, again and again, and keeps
// its subscription.
func TestQuietHostIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRelay(t, 2, nil)
	f := follow(t, Config{Hosts: []string{r.url()}, Quiet: 500 * time.Millisecond, Probe: 500 * time.Millisecond})
	f.reaches(t, r.url(), 2)
	require.Eventually(t, func() bool { return len(r.cursors()) >= 9 }, patient, 5*time.Millisecond, "the host was not asked")
	r.move(1)
	f.reaches(t, r.url(), 3)
	requireRow(t, f.of(r.url()), 1, 3)
	for i, cursor := range r.cursors()[1:] {
		want := int64(2)
		if i%2 == 1 {
			want = none
		}
		if i < 8 {
			require.Equal(t, want, cursor, "subscription %d is not a probe", i+1)
		}
	}
}

// TestSlowReceiverIsNoStall blocks the receiver for as long as it takes for the
// client to count as silent many times over.
func TestSlowReceiverIsNoStall(t *testing.T) {
	t.Parallel()
	r := newRelay(t, 5, nil)
	free := make(chan struct{})
	f := &follower{hold: func() { <-free }}
	f.run(t, Config{Hosts: []string{r.url()}, Quiet: time.Second, Probe: 500 * time.Millisecond})
	f.reaches(t, r.url(), 1)
	r.move(5)
	time.Sleep(5 * time.Second) // five times what counts as quiet
	require.Equal(t, []int64{0}, r.cursors(), "the host was asked though it is we who do not read")
	close(free)
	f.reaches(t, r.url(), 10)
	requireRow(t, f.of(r.url()), 1, 10)
}

// TestDeadPeer loses all packets in both directions, without a word, as a dead
// machine or a lost route does.
func TestDeadPeer(t *testing.T) {
	t.Parallel()
	r := newRelay(t, 2, nil)
	way := newWay(t, r.server.Listener.Addr().String())
	host := "ws://" + way.listener.Addr().String()
	f := follow(t, Config{Hosts: []string{host}, Silence: 2 * time.Second})
	f.reaches(t, host, 2)
	way.lost.Store(way.accepted.Load())
	r.move(2)
	require.Eventually(t, func() bool { return way.swallowed.Load() > 0 }, patient, time.Millisecond, "the fault did not happen")
	f.reaches(t, host, 4)
	require.EqualValues(t, 2, way.accepted.Load(), "the dead connection was kept")
	requireRow(t, f.of(host), 1, 4)
}

// way is a TCP proxy whose bytes can be made to vanish.
type way struct {
	listener  net.Listener
	lost      atomic.Int64 // how many connections, the first ones, lose what is sent
	swallowed atomic.Int64 // bytes
	accepted  atomic.Int64 // connections
}

func newWay(t *testing.T, target string) *way {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &way{listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			nth := w.accepted.Add(1)
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			go w.pass(nth, in, out)
			go w.pass(nth, out, in)
		}
	}()
	return w
}

func (w *way) pass(nth int64, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	var room [4096]byte
	for {
		n, err := from.Read(room[:])
		if nth <= w.lost.Load() {
			w.swallowed.Add(int64(n))
		} else if _, err := to.Write(room[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// TestFailoverAndReturn follows two hosts with sequences of their own. A hiccup of the
// first changes nothing; when it is gone the second is followed, from its own
// cursor, until the first is back.
func TestFailoverAndReturn(t *testing.T) {
	t.Parallel()
	first, second := newRelay(t, 3, nil), newRelay(t, 1003, nil)
	way := newGate(t, first.server.Listener.Addr().String())
	a, b := "ws://"+way.listener.Addr().String(), second.url()
	f := follow(t, Config{Hosts: []string{a, b}, Return: 50 * time.Millisecond, Probe: 50 * time.Millisecond, Quiet: time.Minute})
	f.reaches(t, a, 3)

	first.drop()
	first.move(1)
	f.reaches(t, a, 4)
	require.Empty(t, second.cursors(), "a hiccup is no reason to change")

	way.shut()
	f.reaches(t, b, 1003)
	require.Positive(t, way.refused.Load(), "the first host was not tried again")
	require.EqualValues(t, 0, second.cursors()[0], "a host that is met first is asked for all it has")
	first.move(2)
	second.move(2)
	f.reaches(t, b, 1005)

	way.open()
	f.reaches(t, a, 6)
	first.move(1)
	f.reaches(t, a, 7)
	requireRow(t, f.of(a), 1, 7)

	way.shut()
	second.move(1)
	f.reaches(t, b, 1006)
	require.EqualValues(t, 1005, lastSubscription(second), "a host that is known is resumed")
	requireRow(t, f.of(b), 1, 1006)
}

func lastSubscription(r *relay) int64 {
	all := r.cursors()
	return all[len(all)-1]
}

// gate is a TCP proxy that can be shut: connections are cut, new ones refused.
type gate struct {
	listener net.Listener
	refused  atomic.Int64

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{listener: listener}
	t.Cleanup(func() { _ = listener.Close(); g.shut() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			g.let(in, target)
		}
	}()
	return g
}

func (g *gate) let(in net.Conn, target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out, err := net.Dial("tcp", target)
	if g.closed || err != nil {
		g.refused.Add(1)
		_ = in.Close()
		return
	}
	g.conns = append(g.conns, in, out)
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			_, _ = io.Copy(pair[1], pair[0])
			_, _ = pair[0].Close(), pair[1].Close()
		}()
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

// TestOutdatedCursorIsHandedOn tells the receiver that events are missing before those
// that follow.
func TestOutdatedCursorIsHandedOn(t *testing.T) {
	t.Parallel()
	r := newRelay(t, 20, func(r *relay, s subscription) {
		var notice bytes.Buffer
		info := stream.XRPCStreamEvent{RepoInfo: &comatproto.SyncSubscribeRepos_Info{Name: "OutdatedCursor"}}
		require.NoError(t, info.Serialize(&notice))
		send(s.conn, notice.Bytes())
		s.cursor = 10
		r.serve(s, nil)
	})
	f := follow(t, Config{Hosts: []string{r.url()}})
	f.reaches(t, r.url(), 20)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NotNil(t, f.all[0].Info)
	require.Equal(t, "OutdatedCursor", f.all[0].Info.Name)
	require.EqualValues(t, 11, f.all[1].Seq)
	require.Len(t, r.cursors(), 1, "the notice ended the subscription")
}

// TestHostThatRefusesTheCursorIsLeft goes on with the next host after error frames.
func TestHostThatRefusesTheCursorIsLeft(t *testing.T) {
	t.Parallel()
	refusing := newRelay(t, 0, func(r *relay, s subscription) {
		var refusal bytes.Buffer
		require.NoError(t, (&stream.XRPCStreamEvent{Error: &stream.ErrorFrame{Error: "FutureCursor"}}).Serialize(&refusal))
		send(s.conn, refusal.Bytes())
		_ = s.conn.Close()
	})
	other := newRelay(t, 1, nil)
	before := counted(t, "layers_firehose_reconnects_total")
	// A connection that lives longer than the longest wait counts as one that was good.
	f := follow(t, Config{Hosts: []string{refusing.url(), other.url()}, MaxBackoff: time.Minute})
	f.reaches(t, other.url(), 1)
	require.Equal(t, []int64{0, 0, 0}, refusing.cursors())
	require.GreaterOrEqual(t, counted(t, "layers_firehose_reconnects_total"), before+3)
}

func TestHostsAreChangedAfterRepeatedFailuresOnly(t *testing.T) {
	t.Parallel()
	h := hosts{list: []string{"a", "b"}, patience: 2}
	require.False(t, h.failed(false))
	require.False(t, h.failed(true), "it had worked in between")
	require.Equal(t, "a", h.current())
	require.True(t, h.failed(false))
	require.Equal(t, "b", h.current())
	require.False(t, h.failed(false))
	require.True(t, h.failed(false))
	require.Equal(t, "a", h.current())
	single := hosts{list: []string{"a"}, patience: 2}
	for range 5 {
		require.False(t, single.failed(false))
	}
	require.Equal(t, 5, single.attempts)
}
