package xrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// Error is an answer other than 2xx, in the form AT Protocol clients know:
// {"error": Name, "message": Message}.
type Error struct {
	Status     int           // of the HTTP answer
	Name       string        // what a program tests for: InvalidRequest, RecordNotFound, ...
	Message    string        // what a person reads; shown to the client as it is
	RetryAfter time.Duration // rounded up to seconds; 0 sends no Retry-After
	cause      error         // logged, never shown
}

// Error is the name and the message, and the cause behind them for the log.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Name, e.Message, e.cause)
	}
	return e.Name + ": " + e.Message
}

// Unwrap is the cause, which the client is not shown.
func (e *Error) Unwrap() error { return e.cause }

const retryAfter = 2 * time.Second // what a client waits before it asks a store again that did not answer

// InvalidRequest is the answer to a request that its sender got wrong: what was
// expected where, and what came.
func InvalidRequest(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Name: "InvalidRequest", Message: fmt.Sprintf(format, args...)}
}

// declared is an error that the query's lexicon lists: always 400, whatever its name.
func declared(name, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Name: name, Message: fmt.Sprintf(format, args...)}
}

func methodNotImplemented(format string, args ...any) *Error {
	return &Error{Status: http.StatusNotImplemented, Name: "MethodNotImplemented", Message: fmt.Sprintf(format, args...)}
}

// Unavailable is the answer while a store cannot be asked.
func Unavailable(cause error) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable",
		Message: "the index cannot be read at the moment; try again", RetryAfter: retryAfter, cause: cause,
	}
}

// statusClientGone is not sent, since nobody is there to read it; it is what
// logs and metrics show for a request whose client hung up.
const statusClientGone = 499

// AsError decides, for every error that a handler may return, what the client
// is told. It is the only place that does.
func AsError(err error) *Error {
	var known *Error
	var fromEcho *echo.HTTPError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled):
		return &Error{Status: statusClientGone, Name: "RequestCanceled", Message: "the client closed the request", cause: err}
	case errors.Is(err, context.DeadlineExceeded), outOfReach(err):
		return Unavailable(err)
	case errors.As(err, &fromEcho):
		return fromRouter(fromEcho)
	default:
		return &Error{
			Status: http.StatusInternalServerError, Name: "InternalServerError",
			Message: "something went wrong on our side; the request id names it in our log", cause: err,
		}
	}
}

// outOfReach tells whether a store could not be asked at all, rather than asked
// the wrong thing: the network failed, or PostgreSQL was starting, stopping or full.
func outOfReach(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		for _, class := range []string{"08", "53", "57"} { // connection, resources, operator's intervention
			if strings.HasPrefix(state.SQLState(), class) {
				return true
			}
		}
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// fromRouter translates what echo and its middleware refuse before a handler runs.
func fromRouter(err *echo.HTTPError) *Error {
	switch err.Code {
	case http.StatusNotFound:
		return &Error{Status: err.Code, Name: "NotFound", Message: "no such path; GET / lists what there is"}
	case http.StatusMethodNotAllowed:
		return &Error{Status: err.Code, Name: "InvalidRequest", Message: "this path does not take that HTTP method"}
	case http.StatusRequestEntityTooLarge:
		return &Error{Status: err.Code, Name: "PayloadTooLarge", Message: "the request's body is too large"}
	}
	if err.Code >= http.StatusInternalServerError {
		return AsError(fmt.Errorf("echo: %v", err.Message))
	}
	return &Error{Status: err.Code, Name: "InvalidRequest", Message: http.StatusText(err.Code)}
}

// ErrorHandler answers a request whose handler returned an error. Faults of ours
// (5xx) are logged with the request id and their cause; the client gets neither.
func ErrorHandler(logger *slog.Logger) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		answer := AsError(err)
		res := c.Response()
		if answer.Status >= http.StatusInternalServerError && answer.cause != nil {
			logger.ErrorContext(c.Request().Context(), "request failed",
				slog.String("requestId", res.Header().Get(echo.HeaderXRequestID)),
				slog.String("path", c.Request().URL.Path),
				slog.Int("status", answer.Status),
				slog.Any("error", answer.cause))
		}
		if res.Committed {
			return
		}
		if answer.Status == statusClientGone {
			res.Status, res.Committed = answer.Status, true
			return
		}
		if answer.RetryAfter > 0 {
			seconds := int((answer.RetryAfter + time.Second - 1) / time.Second)
			res.Header().Set(echo.HeaderRetryAfter, strconv.Itoa(seconds))
		}
		body := struct {
			Error     string `json:"error"`
			Message   string `json:"message"`
			RequestID string `json:"requestId,omitempty"`
		}{Error: answer.Name, Message: answer.Message}
		if !strings.HasPrefix(c.Request().URL.Path, prefix) { // AT Protocol has two fields
			body.RequestID = res.Header().Get(echo.HeaderXRequestID)
		}
		if err := c.JSON(answer.Status, body); err != nil {
			logger.DebugContext(c.Request().Context(), "error answer not sent", slog.Any("error", err))
		}
	}
}
