// Package firehose keeps one socket to a relay or PDS and hands on the frames of
// com.atproto.sync.subscribeRepos in sequence. It decodes frames but knows no
// record: stage 1 of the line.
//
// Read on in connection.go (one socket), probe.go (whether a silent one is stuck or
// its host quiet) and hosts.go (which of several hosts is followed).
package firehose

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// MaxFrame is the largest frame that a host may send, in bytes
// (https://atproto.com/specs/sync, "Limits").
const MaxFrame = 5_000_000

// Frame is one message of the stream as it came from the socket.
type Frame struct {
	Host string // the host's URL, which the sequence numbers belong to
	Data []byte // at most MaxFrame bytes; of a larger message the beginning alone
	Size int64  // of the message, in bytes
}

// Config says where to subscribe and how patient to be. What is zero takes the
// default.
type Config struct {
	Hosts      []string      // ws:// or wss:// URLs; the first is followed while it works
	UserAgent  string        // sent with the handshake
	MinBackoff time.Duration // first wait before reconnecting; 500 ms by default
	MaxBackoff time.Duration // longest wait; 30 s by default
	Silence    time.Duration // after this long without frame or pong the socket counts as dead; 60 s by default
	Quiet      time.Duration // after this long without a frame the host is asked how far it is; 2 min by default
	Probe      time.Duration // how long that question may take to be answered; 10 s by default
	Failures   int           // of a host in a row, before the next one is followed; 3 by default
	Return     time.Duration // how often the first host is tried while another is followed; 5 min by default
	Logger     *slog.Logger
}

// Client subscribes to one of several hosts at a time.
type Client struct {
	cfg    Config
	dialer *websocket.Dialer
}

// New makes a client; Run starts it. dialer may be nil for the default one.
func New(cfg Config, dialer *websocket.Dialer) *Client {
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, 500*time.Millisecond)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, 30*time.Second)
	cfg.Silence = cmp.Or(cfg.Silence, 60*time.Second)
	cfg.Quiet = cmp.Or(cfg.Quiet, 2*time.Minute)
	cfg.Probe = cmp.Or(cfg.Probe, 10*time.Second)
	cfg.Failures = cmp.Or(cfg.Failures, 3)
	cfg.Return = cmp.Or(cfg.Return, 5*time.Minute)
	if dialer == nil {
		dialer = &websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 20 * time.Second, ReadBufferSize: 64 << 10}
	}
	return &Client{cfg: cfg, dialer: dialer}
}

// Cursors tells from where to resume on a host: the last sequence number that
// has been applied, and whether there is one. Without one the host is asked for
// everything it still has.
type Cursors func(ctx context.Context, host string) (seq int64, known bool, err error)

// Run subscribes and calls emit for every frame, in order, until ctx ends or emit
// fails. emit may block: the socket is then not read, and the host waits. Lost
// connections are taken up again with growing, jittered waits, from the cursor
// that cursors then names. After several failures in a row the next host of the
// list is followed, until the first one works again.
func (c *Client) Run(ctx context.Context, cursors Cursors, emit func(Frame) error) error {
	at := &hosts{list: c.cfg.Hosts, patience: c.cfg.Failures}
	for {
		err := c.follow(ctx, at, cursors, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stop := (*emitError)(nil); errors.As(err, &stop) {
			return stop.err
		}
		if errors.Is(err, errReturn) {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.backoff(at.attempts)):
		}
	}
}

// follow keeps one connection to the current host until it ends, says so, and
// chooses the host for the next one.
func (c *Client) follow(ctx context.Context, at *hosts, cursors Cursors, emit func(Frame) error) error {
	host := at.current()
	lived, err := c.subscribe(ctx, host, at.first(), cursors, emit)
	if stop := (*emitError)(nil); ctx.Err() != nil || errors.As(err, &stop) {
		return err
	}
	reason := reasonOf(err)
	reconnects.WithLabelValues(reason).Inc()
	c.cfg.Logger.WarnContext(ctx, "firehose connection ended, will reconnect", "host", host, "reason", reason, "error", err)
	if errors.Is(err, errReturn) {
		at.back()
		return err
	}
	if at.failed(lived > c.cfg.MaxBackoff) {
		failovers.Inc()
		c.cfg.Logger.ErrorContext(ctx, "a host failed repeatedly, following the next one", "host", host, "next", at.current())
	}
	return err
}

// backoff doubles from MinBackoff to MaxBackoff, with full jitter above the minimum.
func (c *Client) backoff(attempt int) time.Duration {
	ceiling := min(c.cfg.MinBackoff<<min(attempt, 20), c.cfg.MaxBackoff)
	return c.cfg.MinBackoff + rand.N(max(ceiling-c.cfg.MinBackoff, 1))
}

// emitError tells a refusal by the receiver from a fault of the connection.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }
