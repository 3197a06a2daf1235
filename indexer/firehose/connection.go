package firehose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// connection is one subscription. Times are counted from its beginning.
type connection struct {
	*Client
	host, first string
	conn        *websocket.Conn
	began       time.Time
	resumed     int64 // the cursor that it began with

	frames  atomic.Int64           // read
	waiting atomic.Int64           // since when a frame is waited for; 0 while one is handed on
	heard   atomic.Int64           // when the last pong came
	latest  atomic.Pointer[latest] // nil before the first frame
}

// latest is the last frame that was read, from which the host's position is taken
// when that is asked for: decoding each frame here would cost what the line does in
// parallel.
type latest struct {
	frame Frame
	at    time.Duration
	event time.Time // when it was read
}

func (c *connection) now() time.Duration { return time.Since(c.began) }

// subscribe follows a host until the connection ends. lived is how long it has shown
// signs of life.
func (c *Client) subscribe(ctx context.Context, host, first string, cursors Cursors, emit func(Frame) error) (lived time.Duration, err error) {
	seq, known, err := cursors(ctx, host)
	if err != nil {
		return 0, fmt.Errorf("reading the cursor of %s: %w", host, err)
	}
	if !known {
		seq = 0
	}
	conn, err := c.dial(ctx, host, &seq)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	c.cfg.Logger.InfoContext(ctx, "firehose connected", "host", host, "cursor", seq, "known", known)
	connected.WithLabelValues(label(host)).Set(1)
	defer connected.WithLabelValues(label(host)).Set(0)
	s := &connection{Client: c, host: host, first: first, conn: conn, began: time.Now(), resumed: seq}
	return s.run(ctx, emit)
}

// run reads until the connection ends. What gives it up does so by way of the
// context's cause.
func (c *connection) run(parent context.Context, emit func(Frame) error) (lived time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })() // so that a blocked read returns
	go c.ping(ctx)
	go c.watch(ctx, cancel)
	err = c.read(emit)
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
		return c.lived(cause), cause
	}
	return c.lived(err), c.explain(err)
}

// lived is the time of the last sign of life. Pongs show that the host lives, but
// not that its stream does.
func (c *connection) lived(err error) (lived time.Duration) {
	if last := c.latest.Load(); last != nil {
		lived = last.at
	}
	if !errors.Is(err, errStalled) {
		lived = max(lived, time.Duration(c.heard.Load()))
	}
	return lived
}

// explain puts the host's own reason in place of the socket's where it gave one.
func (c *connection) explain(err error) error {
	last := c.latest.Load()
	if stop := (*emitError)(nil); last == nil || errors.As(err, &stop) {
		return err
	}
	_, decoding := last.frame.Decode()
	if ended := (*StreamError)(nil); errors.As(decoding, &ended) {
		return ended
	}
	return err
}

// dial opens a subscription, with a cursor or without.
func (c *Client) dial(ctx context.Context, host string, cursor *int64) (*websocket.Conn, error) {
	address, err := subscribeURL(host, cursor)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	header.Set("User-Agent", c.cfg.UserAgent)
	conn, response, err := c.dialer.DialContext(ctx, address, header) //nolint:bodyclose // the library leaves nothing to close
	if err != nil {
		return nil, dialError(address, response, err)
	}
	return conn, nil
}

// errDial is wrapped by the error of a connection that was not made.
var errDial = errors.New("connecting failed")

func dialError(address string, response *http.Response, err error) error {
	if response == nil {
		return fmt.Errorf("%w: %s: %w", errDial, address, err)
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
	return fmt.Errorf("%w: %s: %w (status %d: %q)", errDial, address, err, response.StatusCode, body)
}

// subscribeURL is the subscription's address on a host, with its cursor or, for what
// happens from now on, without.
func subscribeURL(host string, cursor *int64) (string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return "", fmt.Errorf("relay URL: %w", err)
	}
	switch u.Scheme {
	case "https":
		u.Scheme = "wss"
	case "http":
		u.Scheme = "ws"
	}
	u = u.JoinPath("/xrpc/com.atproto.sync.subscribeRepos")
	if cursor != nil {
		u.RawQuery = url.Values{"cursor": {strconv.FormatInt(*cursor, 10)}}.Encode()
	}
	return u.String(), nil
}

// read hands on frames until the socket ends. A dead one is told by the pongs that do
// not come.
func (c *connection) read(emit func(Frame) error) error {
	alive := func() error { return c.conn.SetReadDeadline(time.Now().Add(c.cfg.Silence)) }
	c.conn.SetPongHandler(func(string) error {
		c.heard.Store(int64(c.now()))
		return alive()
	})
	var room bytes.Buffer
	for {
		if err := alive(); err != nil {
			return fmt.Errorf("setting the read deadline: %w", err)
		}
		c.waiting.Store(max(int64(c.now()), 1))
		frame, err := next(c.conn, &room)
		if err != nil {
			return fmt.Errorf("reading from %s: %w", c.host, err)
		}
		c.waiting.Store(0)
		frame.Host = c.host
		c.note(frame)
		if err := emit(frame); err != nil {
			return &emitError{err}
		}
	}
}

func (c *connection) note(frame Frame) {
	c.frames.Add(1)
	c.latest.Store(&latest{frame: frame, at: c.now(), event: time.Now()})
	framesRead.Inc()
	bytesRead.Add(float64(frame.Size))
	lastFrame.SetToCurrentTime()
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

// ping keeps asking whether the host lives.
func (c *connection) ping(ctx context.Context) {
	ticker := time.NewTicker(c.cfg.Silence / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(5*time.Second))
		}
	}
}

// The reasons for which a connection ends, as the metric has them.
const (
	reasonConnect = "connect" // it was not made
	reasonClosed  = "closed"  // by the host, or on the way
	reasonSilent  = "silent"  // no answer to pings
	reasonStalled = "stalled" // answers to pings, but no events, while the host has some
	reasonReturn  = "return"  // the first host works again
	reasonError   = "error_frame"
)

func reasonOf(err error) string {
	var ended *StreamError
	var timeout net.Error
	switch {
	case errors.Is(err, errReturn):
		return reasonReturn
	case errors.Is(err, errStalled):
		return reasonStalled
	case errors.Is(err, errDial):
		return reasonConnect
	case errors.As(err, &ended):
		return reasonError
	case errors.As(err, &timeout) && timeout.Timeout():
		return reasonSilent
	}
	return reasonClosed
}

// label names a host in metrics, without what a URL may hold beside.
func label(host string) string {
	if u, err := url.Parse(host); err == nil {
		return u.Host
	}
	return "unknown"
}
