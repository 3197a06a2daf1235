package task

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands in front of a store and can cut it off.
type proxy struct {
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}

	refused atomic.Int64 // connections that were asked for while the store was cut off
}

// in starts the proxy in front of the store at that URL and returns the URL through it.
func (p *proxy) in(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	target := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.conns = map[net.Conn]struct{}{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn, target)
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); p.cut() })
	u.Host = listener.Addr().String()
	return u.String()
}

func (p *proxy) serve(client net.Conn, target string) {
	if !p.hold(client) {
		p.refused.Add(1)
		return
	}
	defer p.drop(client)
	server, err := net.Dial("tcp", target)
	if err != nil || !p.hold(server) {
		return
	}
	defer p.drop(server)
	ended := make(chan struct{}, 2)
	for _, pipe := range [][2]net.Conn{{server, client}, {client, server}} {
		go func() { _, _ = io.Copy(pipe[0], pipe[1]); ended <- struct{}{} }()
	}
	<-ended
}

// hold keeps a connection to be cut later, or resets it while the store is cut off.
func (p *proxy) hold(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		reset(conn)
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		reset(conn)
	}
}

func (p *proxy) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}
