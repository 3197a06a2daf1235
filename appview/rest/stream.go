package rest

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// A stream is an answer of one JSON object a line, written as it is read, so that it
// takes no more memory however long it is. Its last line has the property end:
//
//	{"end":"complete","records":1234}
//	{"end":"error","records":1234,"error":"ServiceUnavailable","message":"…","requestId":"…","cursor":"…"}
//
// What ends without such a line was cut off on its way.

const (
	mediaLines   = "application/x-ndjson"
	mostStreams  = 4                // at a time: each holds one of the few connections to the store for much of its time
	partTime     = 10 * time.Second // for one question to the store
	sendTime     = 30 * time.Second // for a client to take what one question has given
	streamTime   = 6 * time.Hour
	streamsAgain = 10 * time.Second // when to ask again, while all are under way
)

// wantsLines tells whether the client would rather have lines than one JSON text.
func wantsLines(c echo.Context) bool {
	for _, field := range c.Request().Header.Values(echo.HeaderAccept) {
		for item := range strings.SplitSeq(field, ",") {
			if media, params, err := mime.ParseMediaType(item); err == nil && media == mediaLines && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}

// Streams tells whether a request is answered by a stream, which sees to the time
// that it may take itself.
func (s *Service) Streams(c echo.Context) bool {
	if s.streams[c.Path()] {
		return true
	}
	return wantsLines(c) && slices.ContainsFunc(s.routes, func(r Route) bool {
		return r.Answer.Lines != nil && r.Pattern() == c.Path()
	})
}

// stream is one that is under way.
type stream struct {
	c       *Call
	ctx     context.Context
	control *http.ResponseController
	records int
	cursor  string // goes on after the last line that was written, where there is such a thing
	// degraded: some of it is of a store that answers in another's place.
	degraded   bool
	incomplete bool // some of it may be missing
}

// lastLine ends a stream.
type lastLine struct {
	End        string `json:"end"` // complete or error
	Records    int    `json:"records"`
	Error      string `json:"error,omitempty"`
	Message    string `json:"message,omitempty"`
	RequestID  string `json:"requestId,omitempty"`
	Cursor     string `json:"cursor,omitempty"`
	Degraded   bool   `json:"degraded,omitempty"`
	Incomplete bool   `json:"incomplete,omitempty"`
}

// streamed answers with the lines that produce writes. An error before the first of
// them is answered like any other.
func (s *Service) streamed(c *Call, produce func(*stream) error) error {
	if c.Request().Method == http.MethodHead { // nothing of it would be sent
		c.Response().Header().Set(echo.HeaderContentType, mediaLines)
		return c.NoContent(http.StatusOK)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return &xrpc.Error{
			Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: streamsAgain,
			Message: fmt.Sprintf("%d exports are under way already; try again", mostStreams),
		}
	}
	ctx, cancel := context.WithTimeout(c.Ctx(), streamTime)
	defer cancel()
	out := &stream{c: c, ctx: ctx, control: http.NewResponseController(c.Response().Writer)}
	// Else the connection's time to send a request would end this one, too.
	if err := out.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("extend the time to read: %w", err)
	}
	c.Response().Header().Set(echo.HeaderContentType, mediaLines)
	err := produce(out)
	if err != nil && !c.Response().Committed {
		c.Response().Header().Del(echo.HeaderContentType)
		return err
	}
	if gone := c.Ctx().Err(); gone != nil {
		return gone // nobody is there to be told
	}
	last := lastLine{End: "complete", Records: out.records, Cursor: out.cursor, Degraded: out.degraded, Incomplete: out.incomplete}
	if err != nil {
		told := xrpc.AsError(err)
		last = lastLine{
			End: "error", Records: out.records, Error: told.Name, Message: told.Message,
			RequestID: c.Response().Header().Get(echo.HeaderXRequestID), Cursor: out.cursor, Degraded: out.degraded, Incomplete: out.incomplete,
		}
	}
	if wrote := out.line(last); wrote != nil {
		return wrote
	}
	if flushed := out.flush(); flushed != nil {
		return flushed
	}
	return err // for the log: the answer is out
}

// ask gives one question to the store its time.
func (o *stream) ask(question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(o.ctx, partTime)
	defer cancel()
	return question(ctx)
}

// write sends a record. It may stay in a buffer until flush.
func (o *stream) write(v view) error { return o.item(v) }

// item sends what the stream is of.
func (o *stream) item(v any) error {
	o.records++
	return o.line(v)
}

func (o *stream) line(v any) error {
	text, err := encode(v) // ends with a line feed
	if err != nil {
		return fmt.Errorf("encode a line: %w", err)
	}
	if err := o.extend(); err != nil {
		return err
	}
	if _, err := o.c.Response().Write(text); err != nil {
		return fmt.Errorf("send a line: %w", err)
	}
	return nil
}

// extend gives the client time for what follows, in place of the time that it has
// for an answer in one piece. A writer without a deadline needs none.
func (o *stream) extend() error {
	if err := o.control.SetWriteDeadline(time.Now().Add(sendTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("extend the time to send: %w", err)
	}
	return nil
}

func (o *stream) flush() error {
	if !o.c.Response().Committed {
		return nil // what went wrong may still be answered as an error
	}
	if err := o.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send lines: %w", err)
	}
	return nil
}

// lineSchema is what a line of a stream of records may be.
func lineSchema() Schema { return Named("Line", Schema{"anyOf": []any{anyView(), lastLineSchema()}}) }

// hitLineSchema is what a line of a stream of hits may be.
func hitLineSchema() Schema {
	return Named("HitLine", Schema{"anyOf": []any{hitSchema(), lastLineSchema()}})
}

func lastLineSchema() Schema {
	return Named("LastLine", Object(map[string]Schema{
		"end":         {"type": "string", "enum": []string{"complete", "error"}, "description": "Only the last line has it."},
		"records":     Integer("How many records the lines before have."),
		"error?":      String("As in the body of an error."),
		"message?":    String("As in the body of an error."),
		"requestId?":  String("Names the request in the server's log."),
		"cursor?":     String("Where a list goes on, after an error or the limit."),
		"degraded?":   Boolean("True where PostgreSQL searched in the place of the search server."),
		"incomplete?": Boolean("True where what was searched was being filled: records may be missing."),
	}))
}
