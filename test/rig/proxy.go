package rig

import (
	"bytes"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Direction is a way through a proxy.
type Direction int

// The two ways.
const (
	ToStore Direction = iota
	FromStore
)

// Proxy stands between the program and a store, and can do to their connections
// what networks do: cut them, let them vanish without a word, hold one way back, or
// take their time. It also tells when certain bytes pass.
type Proxy struct {
	Target   string // the store's address, host:port
	listener net.Listener

	mu       sync.Mutex
	down     bool
	vanished bool
	delay    time.Duration
	held     [2]chan struct{} // by direction; closed when it goes on
	triggers []*Trigger
	conns    map[net.Conn]struct{}
	links    map[*link]struct{}

	Severed atomic.Int64 // connections that a cut ended
	Refused atomic.Int64 // connections that were asked for during cuts
	Delayed atomic.Int64 // answers that came late
	Held    atomic.Int64 // pieces of traffic that a held direction kept waiting
	Lost    atomic.Int64 // pieces of traffic that went nowhere
}

// Before starts a proxy in front of the store at a URL, and returns the URL through it.
func Before(t testing.TB, store string) (p *Proxy, through string) {
	t.Helper()
	u, err := url.Parse(store)
	require.NoError(t, err)
	p = NewProxy(t, u.Host)
	u.Host = p.Addr()
	return p, u.String()
}

// NewProxy starts a proxy in front of the target, host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{listener: listener, Target: target, conns: map[net.Conn]struct{}{}, links: map[*link]struct{}{}}
	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	t.Cleanup(func() {
		_ = listener.Close()
		p.Restore()
		p.Cut()
		running.Wait()
	})
	return p
}

// Addr is the proxy's own address, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) accept(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	if !p.enter(client) {
		p.Refused.Add(1)
		return
	}
	defer p.leave(client)
	server, err := net.Dial("tcp", p.Target)
	if err != nil {
		return
	}
	if !p.enter(server) {
		return
	}
	defer p.leave(server)
	l := &link{proxy: p, server: server}
	p.join(l)
	defer p.part(l)
	var ways sync.WaitGroup
	ways.Go(func() { l.carry(server, client, ToStore) })
	ways.Go(func() { l.carry(client, server, FromStore) })
	ways.Wait()
}

// enter takes a connection in, or resets it while the store is cut off.
func (p *Proxy) enter(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		reset(conn)
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) join(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
}

func (p *Proxy) part(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) leave(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

// Cut resets all connections, and new ones as they come, until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.sever()
}

// Reset resets all connections once; new ones are let through.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sever()
}

func (p *Proxy) sever() {
	for conn := range p.conns {
		reset(conn)
	}
	p.Severed.Add(int64(len(p.conns)))
}

// Vanish makes the store disappear as a machine does that loses its power:
// connections stay open, and what is sent on them goes nowhere. Those that there are
// or come until Restore stay like that for ever; the store, for its part, has found out
// by then, as its keepalives make it.
func (p *Proxy) Vanish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vanished = true
}

// Delay has each answer of the store come so much later; 0 ends that.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Hold lets nothing pass in one direction until Restore.
func (p *Proxy) Hold(way Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[way] == nil {
		p.held[way] = make(chan struct{})
	}
}

// Restore ends everything that goes wrong.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.vanished, p.delay = false, false, 0
	for l := range p.links {
		if l.dead.Load() {
			reset(l.server)
		}
	}
	for way, held := range p.held {
		if held != nil {
			close(held)
			p.held[way] = nil
		}
	}
}

// Trigger tells when certain bytes come by.
type Trigger struct {
	way     Direction
	pattern []byte
	left    atomic.Int64 // how often they have yet to come by
	act     func() (pass bool)
	Fired   chan struct{} // closed when it has acted
}

// On calls act once, when the pattern comes by for the nth time. The traffic that it is
// in waits for act, and goes on only if that says so.
func (p *Proxy) On(way Direction, pattern string, nth int64, act func() (pass bool)) *Trigger {
	t := &Trigger{way: way, pattern: []byte(pattern), act: act, Fired: make(chan struct{})}
	t.left.Store(nth)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.triggers = append(p.triggers, t)
	return t
}

// Forget takes a trigger away that has not fired.
func (p *Proxy) Forget(t *Trigger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.triggers = slices.DeleteFunc(p.triggers, func(other *Trigger) bool { return other == t })
}

func (p *Proxy) watching(way Direction) []*Trigger {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.triggers), func(t *Trigger) bool { return t.way != way })
}

func (p *Proxy) state(way Direction) (vanished bool, delay time.Duration, held chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if way == ToStore {
		return p.vanished, 0, p.held[way]
	}
	return p.vanished, p.delay, p.held[way]
}

// reset closes a connection with RST, as the kernel of a dead server's machine does.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// link is a pair of connections through a proxy.
type link struct {
	proxy  *Proxy
	server net.Conn
	dead   atomic.Bool // the store has vanished from it
}

// piece is some traffic, and when it may go on.
type piece struct {
	data []byte
	due  time.Time
}

// carry takes what comes from one side to the other. A delay does not narrow the
// way: what follows is read meanwhile.
func (l *link) carry(to, from net.Conn, way Direction) {
	pieces := make(chan piece, 256)
	var writing sync.WaitGroup
	writing.Go(func() {
		for next := range pieces {
			time.Sleep(time.Until(next.due))
			if _, err := to.Write(next.data); err != nil && !l.dead.Load() {
				_ = from.Close() // ends the reading too
			}
		}
		if !l.dead.Load() {
			_ = to.(*net.TCPConn).CloseWrite()
		}
	})
	defer writing.Wait()
	defer close(pieces)
	room := make([]byte, 64<<10)
	tail := []byte{}
	for {
		n, err := from.Read(room)
		if n > 0 {
			rest, pass := l.watch(append(tail, room[:n]...), way)
			if tail = rest; pass {
				l.pass(pieces, bytes.Clone(room[:n]), way)
			} else {
				l.proxy.Lost.Add(1)
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) pass(pieces chan<- piece, data []byte, way Direction) {
	vanished, delay, held := l.proxy.state(way)
	if held != nil {
		l.proxy.Held.Add(1)
		<-held
	}
	if vanished || l.dead.Load() {
		l.dead.Store(true)
		l.proxy.Lost.Add(1)
		return
	}
	if delay > 0 {
		l.proxy.Delayed.Add(1)
	}
	pieces <- piece{data: data, due: time.Now().Add(delay)}
}

// watch looks for what triggers wait for. It returns the end of the traffic, which may
// be a pattern's beginning, and whether the traffic may pass.
func (l *link) watch(traffic []byte, way Direction) (tail []byte, pass bool) {
	longest, pass := 0, true
	for _, t := range l.proxy.watching(way) {
		longest = max(longest, len(t.pattern)-1)
		if found := int64(bytes.Count(traffic, t.pattern)); found > 0 {
			if left := t.left.Add(-found); left <= 0 && left+found > 0 {
				pass = t.act() && pass
				close(t.Fired)
			}
		}
	}
	return bytes.Clone(traffic[max(0, len(traffic)-longest):]), pass
}
