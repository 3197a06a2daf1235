package appview

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/caller"
	"github.com/layers-pub/layers-appview/appview/rest"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

const maxRequestID = 64 // characters

// requestID keeps the id that a client or proxy gave the request, if it is fit
// to stand in a log, or makes one; the answer carries it.
func requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !saneRequestID(id) {
			id = rand.Text()
		}
		c.Response().Header().Set(echo.HeaderXRequestID, id)
		return next(c)
	}
}

func saneRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	return strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// observe writes the access log and the metrics of every request. It has the
// error answered before it looks at the status, so that both see what was sent.
func observe(logger *slog.Logger, m *measures) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			m.inFlight.Inc()
			defer m.inFlight.Dec()
			start := time.Now()
			if err := next(c); err != nil {
				c.Error(err)
			}
			took := time.Since(start)
			req, res := c.Request(), c.Response()
			route := routeLabel(c.Path())
			m.observe(req.Context(), req.Method, route, res.Status, took)
			logger.LogAttrs(req.Context(), slog.LevelInfo, "request",
				slog.String("method", req.Method),
				slog.String("route", route),
				slog.Int("status", res.Status),
				slog.Int64("bytes", res.Size),
				slog.Duration("duration", took),
				slog.String("requestId", res.Header().Get(echo.HeaderXRequestID)),
				slog.String("client", c.RealIP()))
			return nil
		}
	}
}

// traced makes each request a span, of the trace that it comes from if it names one.
// Followers of the index are none: theirs would end with them.
func traced(streams func(echo.Context) bool) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if streams(c) || !telemetry.Tracing() {
				return next(c)
			}
			ctx, span := telemetry.Serve(c.Request(), routeLabel(c.Path()))
			c.SetRequest(c.Request().WithContext(ctx))
			if err := next(c); err != nil {
				c.Error(err)
			}
			span.Served(c.Response().Status)
			return nil
		}
	}
}

// recoverPanics turns a panic into an internal error, with its stack in the log.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if e, ok := r.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(r) // net/http's own way to drop a connection
			}
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}()
		return next(c)
	}
}

// deadline bounds how long a request may wait for what it asks of the stores, except
// for streams, which bound each part of theirs themselves.
func deadline(d time.Duration, streams func(echo.Context) bool) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if streams(c) {
				return next(c)
			}
			req := c.Request()
			ctx, cancel := context.WithTimeout(req.Context(), d)
			defer cancel()
			c.SetRequest(req.WithContext(ctx))
			err := next(c)
			if err != nil && ctx.Err() != nil {
				// A store that was told to stop may say so in words of its own.
				err = errors.Join(err, ctx.Err())
			}
			return err
		}
	}
}

// groupsOf tells which group a request is of: routes that are neither XRPC methods nor
// REST endpoints are never limited.
func groupsOf(deps Deps) func(echo.Context) traffic.Group {
	return func(c echo.Context) traffic.Group {
		if deps.Live != nil && deps.Live.Streams(c) {
			return traffic.Streams
		}
		if _, ok := xrpc.Method(c.Path()); ok {
			return traffic.Records
		}
		if deps.REST == nil {
			return traffic.Open
		}
		return deps.REST.Group(c)
	}
}

// identify finds out who asks, and counts the request. Who has sent a token that does
// not hold is told so, rather than taken for nobody in particular.
func identify(callers *caller.Callers, quotas *traffic.Quotas, group func(echo.Context) traffic.Group) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			g := group(c)
			if g == traffic.Open {
				return next(c)
			}
			from := traffic.Caller{Tier: traffic.Anonymous, Address: c.RealIP()}
			if callers != nil {
				nsid, _ := xrpc.Method(c.Path())
				var err error
				if from, err = callers.Identify(c.Request(), from.Address, syntax.NSID(nsid)); err != nil {
					if xrpc.AsError(err).Status == http.StatusUnauthorized {
						c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
					}
					return err
				}
			}
			if err := quotas.Take(c.Request().Context(), g, from, c.Response().Header()); err != nil {
				return err
			}
			return next(c)
		}
	}
}

// admit lets so many requests of each group be worked on at a time. Those that wait
// do so within their deadline.
func admit(limits *traffic.Limits, group func(echo.Context) traffic.Group) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			leave, err := limits.Enter(c.Request().Context(), group(c))
			if err != nil {
				return err
			}
			defer leave()
			return next(c)
		}
	}
}

// routeLabel names the route that a path matched: the NSID of an XRPC method,
// the path itself of another route, "unknown" for what no route has. Paths that
// clients invent never become labels.
func routeLabel(matched string) string {
	if matched == "" || matched == xrpc.CatchAll || matched == rest.CatchAll {
		return "unknown"
	}
	if nsid, ok := xrpc.Method(matched); ok {
		return nsid
	}
	return matched
}
