// Package firehose keeps one socket to a relay or PDS and hands on the frames of
// com.atproto.sync.subscribeRepos in sequence. It decodes frames but knows no
// record: stage 1 of the line.
package firehose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
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

// Config says where to subscribe and how patient to be. The zero durations take
// the defaults.
type Config struct {
	Hosts      []string      // ws:// or wss:// URLs, tried in turn
	UserAgent  string        // sent with the handshake
	MinBackoff time.Duration // first wait before reconnecting; 500 ms by default
	MaxBackoff time.Duration // longest wait; 30 s by default
	Silence    time.Duration // after this long without frame or pong the socket counts as dead; 60 s by default
	Logger     *slog.Logger
}

// Client subscribes to one of several hosts at a time.
type Client struct {
	cfg    Config
	dialer *websocket.Dialer
}

// New makes a client; Run starts it. dialer may be nil for the default one.
func New(cfg Config, dialer *websocket.Dialer) *Client {
	cfg.MinBackoff = orDefault(cfg.MinBackoff, 500*time.Millisecond)
	cfg.MaxBackoff = orDefault(cfg.MaxBackoff, 30*time.Second)
	cfg.Silence = orDefault(cfg.Silence, 60*time.Second)
	if dialer == nil {
		dialer = &websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 20 * time.Second, ReadBufferSize: 64 << 10}
	}
	return &Client{cfg: cfg, dialer: dialer}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// Cursors tells from where to resume on a host: the last sequence number that
// has been applied, and whether there is one. Without one the host is asked for
// everything it still has.
type Cursors func(ctx context.Context, host string) (seq int64, known bool, err error)

// Run subscribes and calls emit for every frame, in order, until ctx ends or emit
// fails. emit may block: the socket is then not read, and the host waits. Lost
// connections are taken up again with growing, jittered waits, from the cursor
// that cursors then names, on the next host of the list.
func (c *Client) Run(ctx context.Context, cursors Cursors, emit func(Frame) error) error {
	for attempt, host := 0, 0; ; host = (host + 1) % len(c.cfg.Hosts) {
		began := time.Now()
		err := c.subscribe(ctx, c.cfg.Hosts[host], cursors, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stop := (*emitError)(nil); errors.As(err, &stop) {
			return stop.err
		}
		if time.Since(began) > c.cfg.MaxBackoff {
			attempt = 0
		}
		wait := c.backoff(attempt)
		attempt++
		c.cfg.Logger.WarnContext(ctx, "firehose connection ended, will reconnect",
			"host", c.cfg.Hosts[host], "error", err, "wait", wait)
		reconnects.Inc()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// backoff doubles from MinBackoff to MaxBackoff, with full jitter above the minimum.
func (c *Client) backoff(attempt int) time.Duration {
	ceiling := min(c.cfg.MinBackoff<<min(attempt, 20), c.cfg.MaxBackoff)
	return c.cfg.MinBackoff + rand.N(max(ceiling-c.cfg.MinBackoff, 1))
}

// emitError tells a refusal by the receiver from a fault of the connection.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

func (c *Client) subscribe(ctx context.Context, host string, cursors Cursors, emit func(Frame) error) error {
	seq, known, err := cursors(ctx, host)
	if err != nil {
		return fmt.Errorf("reading the cursor of %s: %w", host, err)
	}
	if !known {
		seq = 0
	}
	address, err := SubscribeURL(host, seq)
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set("User-Agent", c.cfg.UserAgent)
	conn, response, err := c.dialer.DialContext(ctx, address, header) //nolint:bodyclose // the library leaves nothing to close
	if err != nil {
		return dialError(address, response, err)
	}
	defer conn.Close()
	c.cfg.Logger.InfoContext(ctx, "firehose connected", "host", host, "cursor", seq)
	return c.read(ctx, conn, host, emit)
}

func dialError(address string, response *http.Response, err error) error {
	if response == nil {
		return fmt.Errorf("connecting to %s: %w", address, err)
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
	return fmt.Errorf("connecting to %s: %w (status %d: %q)", address, err, response.StatusCode, body)
}

// SubscribeURL is the subscription's address on a host, with its cursor.
func SubscribeURL(host string, cursor int64) (string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return "", fmt.Errorf("relay URL %q: %w", host, err)
	}
	switch u.Scheme {
	case "https":
		u.Scheme = "wss"
	case "http":
		u.Scheme = "ws"
	}
	u = u.JoinPath("/xrpc/com.atproto.sync.subscribeRepos")
	u.RawQuery = url.Values{"cursor": {strconv.FormatInt(cursor, 10)}}.Encode()
	return u.String(), nil
}

// read hands on frames until the socket ends. Silence is judged by pings of our
// own, so that a quiet host is told from a dead one.
func (c *Client) read(ctx context.Context, conn *websocket.Conn, host string, emit func(Frame) error) error {
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(c.cfg.Silence)) }
	conn.SetPongHandler(func(string) error { return alive() })
	done := make(chan struct{})
	defer close(done)
	go c.ping(ctx, conn, done)
	var room bytes.Buffer
	for {
		if err := alive(); err != nil {
			return fmt.Errorf("setting the read deadline: %w", err)
		}
		frame, err := next(conn, &room)
		if err != nil {
			return fmt.Errorf("reading from %s: %w", host, err)
		}
		frame.Host = host
		framesRead.Inc()
		bytesRead.Add(float64(frame.Size))
		if err := emit(frame); err != nil {
			return &emitError{err}
		}
	}
}

// next reads one message, by way of room, whose contents it replaces: so the frame,
// which is kept for a while, is no larger than it must be. What exceeds MaxFrame is read
// past and dropped: closing the socket instead would bring the same message again
// after every reconnect.
func next(conn *websocket.Conn, room *bytes.Buffer) (Frame, error) {
	_, r, err := conn.NextReader()
	if err != nil {
		return Frame{}, err
	}
	room.Reset()
	size, err := room.ReadFrom(io.LimitReader(r, MaxFrame))
	if err != nil {
		return Frame{}, err
	}
	rest, err := io.Copy(io.Discard, r)
	if err != nil {
		return Frame{}, err
	}
	return Frame{Data: bytes.Clone(room.Bytes()), Size: size + rest}, nil
}

// ping keeps asking whether the host lives, and closes the socket when ctx ends
// so that a blocked read returns.
func (c *Client) ping(ctx context.Context, conn *websocket.Conn, done <-chan struct{}) {
	ticker := time.NewTicker(c.cfg.Silence / 3)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			conn.Close()
			return
		case <-ticker.C:
			_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(5*time.Second))
		}
	}
}
