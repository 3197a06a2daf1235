package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// MediaEvents is the media type of server-sent events.
const MediaEvents = "text/event-stream"

const (
	headerLastEventID = "Last-Event-ID"
	reconnectAfter    = 3 * time.Second
)

// ServeEvents answers with server-sent events. Each has its cursor as id, so that a
// browser that connects again goes on where it was. What is there at present is all
// that is sent where the client does not want to wait for more.
func (s *Service) ServeEvents(c echo.Context, args *xrpc.Arguments, wait bool) error {
	q, err := s.Ask(c.Request().Context(), args)
	if err != nil {
		return err
	}
	if id := c.Request().Header.Get(headerLastEventID); id != "" { // of the same client, so later than its address
		if err := q.after(id); err != nil {
			return err
		}
	}
	header := c.Response().Header()
	if c.Request().Method == http.MethodHead {
		header.Set(echo.HeaderContentType, MediaEvents)
		return c.NoContent(http.StatusOK)
	}
	leave, err := s.enter(c.RealIP())
	if err != nil {
		return err
	}
	defer leave()
	ctx := c.Request().Context()
	place, end, outdated, err := s.start(ctx, &q)
	if err != nil {
		return err
	}
	followingEvents.Inc()
	defer followingEvents.Dec()
	header.Set(echo.HeaderContentType, MediaEvents)
	header.Set(echo.HeaderCacheControl, "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would keep events back
	out := &eventSink{c: c, control: http.NewResponseController(c.Response().Writer), time: s.cfg.SendTime}
	// Else the connection's time to send a request would end this one, too.
	if err := out.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("extend the time to read: %w", err)
	}
	if err := out.write("retry: ", strconv.FormatInt(reconnectAfter.Milliseconds(), 10), "\n\n"); err != nil {
		return s.gone(err)
	}
	if wait {
		return s.gone(s.follow(ctx, q, place, end, outdated, out))
	}
	return s.gone(s.present(ctx, q, place, outdated, out))
}

// gone notes how a connection was lost. There is nobody left to be told.
func (s *Service) gone(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		dropped.WithLabelValues("stuck").Inc()
	}
	return nil
}

// eventSink writes server-sent events.
type eventSink struct {
	c       echo.Context
	control *http.ResponseController
	time    time.Duration // for each write
}

func (o *eventSink) write(parts ...string) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(o.time)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("extend the time to send: %w", err)
	}
	if _, err := o.c.Response().Write([]byte(strings.Join(parts, ""))); err != nil {
		return fmt.Errorf("send an event: %w", err)
	}
	return nil
}

func (o *eventSink) data(cursor int64, text []byte) error {
	return o.write("id: ", strconv.FormatInt(cursor, 10), "\ndata: ", string(text), "\n\n")
}

func (o *eventSink) event(i *item, value json.RawMessage) error {
	text, err := i.text(value)
	if err != nil {
		return err
	}
	return o.data(i.Cursor, text)
}

func (o *eventSink) info(n notice) error    { return o.message(infoOf(n)) }
func (o *eventSink) failure(n notice) error { return o.message(errorOf(n)) }

func (o *eventSink) message(m message) error {
	text, err := m.text()
	if err != nil {
		return err
	}
	return o.data(m.Cursor, text)
}

// position is an event without data: a browser notes its id, and shows it to nobody.
func (o *eventSink) position(cursor int64) error {
	return o.write(": here\nid: ", strconv.FormatInt(cursor, 10), "\n\n")
}

func (o *eventSink) flush() error {
	if err := o.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send events: %w", err)
	}
	return nil
}
