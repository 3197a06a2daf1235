package appview

import (
	"net/http"
	"net/http/pprof"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// operatorRoutes are the paths of the operator's address.
func (s *Server) operatorRoutes(deps Deps) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(deps.Metrics, promhttp.HandlerOpts{Registry: deps.Metrics, EnableOpenMetrics: true}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", commandOnly)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if deps.Admin != nil {
		mux.Handle("/api/v1/admin/", s.adminRoutes(deps))
	}
	return guardedHandler(mux)
}

// adminRoutes are what operators can do who prove that they are.
func (s *Server) adminRoutes(deps Deps) http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Logger.SetOutput(discard{})
	e.HTTPErrorHandler = xrpc.ErrorHandler(s.logger)
	e.IPExtractor = echo.ExtractIPDirect()
	e.Use(
		requestID,
		recoverPanics,
		middleware.BodyLimit(maxBody),
		deadline(s.cfg.RequestTimeout, func(echo.Context) bool { return false }),
	)
	deps.Admin.Mount(e)
	return e
}

// commandOnly answers as pprof does, but for the arguments: they may hold passwords.
func commandOnly(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("layers"))
}
