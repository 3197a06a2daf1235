package xrpc

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// wire stands between the service and PostgreSQL, and can be cut or blocked.
type wire struct {
	listener net.Listener
	to       string
	blocked  atomic.Bool // nothing passes, but nothing is closed either

	mu    sync.Mutex
	conns []net.Conn
}

// newWire listens for connections to the database and returns its URL by that way.
func newWire(t *testing.T, database string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	w := &wire{to: u.Host}
	w.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go w.accept()
	t.Cleanup(w.cut)
	u.Host = w.listener.Addr().String()
	return w, u.String()
}

func (w *wire) accept() {
	for {
		from, err := w.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", w.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, from, to)
		w.mu.Unlock()
		go w.pass(from, to)
		go w.pass(to, from)
	}
}

func (w *wire) pass(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if w.blocked.Load() {
			_, _ = io.Copy(io.Discard, from) // lost, as on a broken route
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut closes every connection and takes no more.
func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// behind is a service whose store is at the other end of a wire.
func behind(t *testing.T) (http.Handler, *wire) {
	t.Helper()
	c := loadCatalog(t)
	w, address := newWire(t, storetest.New(t, layout.Partitions(c)...).URL)
	pool, err := store.Open(t.Context(), store.Config{URL: address, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return serve(New(c, store.NewReader(pool), nil)), w
}

// askWithin sends a request that ends after a time, as the server's do.
func askWithin(t *testing.T, h http.Handler, d time.Duration, target string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	res := httptest.NewRecorder()
	h.ServeHTTP(res, httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil))
	return res
}

func TestPostgreSQLThatIsGone(t *testing.T) {
	t.Parallel()
	h, w := behind(t)
	require.Equal(t, 200, askWithin(t, h, time.Minute, reads[2]).Code)
	w.cut()
	for _, target := range reads {
		res := askWithin(t, h, time.Minute, target)
		refused(t, res, 503, "ServiceUnavailable")
		require.NotEmpty(t, res.Header().Get("Retry-After"), target)
	}
}

func TestPostgreSQLThatNoLongerAnswers(t *testing.T) {
	t.Parallel()
	h, w := behind(t)
	require.Equal(t, 200, askWithin(t, h, time.Minute, reads[2]).Code)
	w.blocked.Store(true)
	var asked sync.WaitGroup
	answers := make(chan *httptest.ResponseRecorder, 3*len(reads)) // more than there are connections
	for i := range cap(answers) {
		asked.Go(func() { answers <- askWithin(t, h, 300*time.Millisecond, reads[i%len(reads)]) })
	}
	asked.Wait()
	close(answers)
	for res := range answers {
		refused(t, res, 503, "ServiceUnavailable")
	}
	w.blocked.Store(false)
	require.Equal(t, 200, askWithin(t, h, time.Minute, reads[2]).Code, "it does not recover")
}
