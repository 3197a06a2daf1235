package appview

import (
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// answerPolicy is that of answers which are data: should a browser take one for a page,
// nothing in it is loaded, run, sent or framed. Pages have a policy of their own.
const answerPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// hstsAge is how long browsers ask nothing of this host but by TLS, once they have.
const hstsAge = "max-age=31536000"

// guarded puts what browsers are to know on every answer. tls is set where clients
// reach this service by https; then they are told to go on so.
func guarded(tls bool) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			header := c.Response().Header()
			guard(header)
			if tls {
				header.Set(echo.HeaderStrictTransportSecurity, hstsAge)
			}
			return next(c)
		}
	}
}

func guard(header http.Header) {
	header.Set(echo.HeaderXContentTypeOptions, "nosniff") // what records hold is no page
	header.Set(echo.HeaderContentSecurityPolicy, answerPolicy)
	header.Set(echo.HeaderXFrameOptions, "DENY")
	header.Set(echo.HeaderReferrerPolicy, "no-referrer")
}

// guardedHandler does the same for the operator's address, of which nothing is kept.
func guardedHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		w.Header().Set(echo.HeaderCacheControl, "no-store")
		next.ServeHTTP(w, r)
	})
}

const anyOrigin = "*"

// askedHeaders are what pages of other origins may send besides what they always may.
var askedHeaders = []string{
	echo.HeaderAuthorization, echo.HeaderContentType, echo.HeaderXRequestID, "If-None-Match", "Cache-Control", "Last-Event-ID",
	"Atproto-Accept-Labelers", "Atproto-Proxy", "Traceparent", "Tracestate",
}

// crossOrigin lets pages of other origins read answers: of those listed, or of any. A
// page never sends what a browser knows of its user (credentials), so what it reads is
// what it could have fetched by itself.
func crossOrigin(origins []string) echo.MiddlewareFunc {
	cfg := middleware.CORSConfig{
		AllowOriginFunc: func(origin string) (bool, error) { return live.Listed(origins, origin), nil },
		AllowMethods:    []string{http.MethodGet, http.MethodHead},
		AllowHeaders:    askedHeaders,
		ExposeHeaders:   slices.Concat([]string{echo.HeaderXRequestID, xrpc.HeaderETag, echo.HeaderRetryAfter}, traffic.Headers),
		MaxAge:          int((24 * time.Hour).Seconds()),
	}
	if live.Listed(origins, anyOrigin) {
		cfg.AllowOriginFunc, cfg.AllowOrigins = nil, []string{anyOrigin}
	}
	return middleware.CORSWithConfig(cfg)
}
