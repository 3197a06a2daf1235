// Package appview is the HTTP side of the Layers appview: it mounts the routes
// on an echo server, says when the process is ready, and drains it.
//
// A process listens on two addresses: the public one (XRPC, /health, /ready, the
// did:web document) and one for the operator (/metrics, /debug/pprof), which
// must not be reachable from outside.
package appview

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	identityDirectory "github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/layers-pub/layers-appview/appview/admin"
	"github.com/layers-pub/layers-appview/appview/caller"
	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/appview/rest"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// Config is what an operator may set. The zero value of a field means its default.
type Config struct {
	Listen        string // public address; default ":3000", port 0 for any free one
	MetricsListen string // the operator's address; default ":9090"
	// PublicURL is the origin that clients reach this service at, for the did:web
	// document: scheme, host and perhaps port. Default: http://localhost with the
	// port that is listened on.
	PublicURL string
	Version   string // what /xrpc/_health says; default "dev"
	// TrustedProxies are the networks whose X-Forwarded-For is believed. None by
	// default: then a client's address is the one it connects from.
	TrustedProxies []netip.Prefix
	// Origins are those of web pages that may read answers; default: all of them, "*".
	// "none" stands for none but this service's own.
	Origins        []string
	RequestTimeout time.Duration // the longest that a request may wait for the stores; default 10 s
	// Concurrency bounds how many requests of each group are worked on at a time;
	// default [traffic.Concurrency].
	Concurrency map[traffic.Group]int
	// Admins and Premium are the accounts of these tiers.
	Admins, Premium []syntax.DID
	// DrainDelay is how long a stopping server goes on to serve while /ready
	// already answers 503, so that load balancers notice. Default: none.
	DrainDelay time.Duration
	// ShutdownTimeout is how long requests in flight then have to end; default 15 s.
	ShutdownTimeout time.Duration
}

// Deps are the parts that the server is put together from.
type Deps struct {
	XRPC   *xrpc.Service   // nil for a process that answers probes alone
	REST   *rest.Service   // nil for none
	Live   *live.Service   // lets clients follow the index; nil for none
	Quotas *traffic.Quotas // nil lets everybody in
	// Directory has the keys of those who send a token; without it none is looked at.
	Directory identityDirectory.Directory
	Admin     *admin.Service       // what operators can do, on their address; nil for nothing
	Checks    []Check              // what has to answer for the process to be ready
	Metrics   *prometheus.Registry // where the server's own metrics go, and what /metrics shows
	Logger    *slog.Logger
}

// Limits of what a client may send, and of how long it may take.
const (
	maxHeaderBytes    = 64 << 10 // an AT-URI has up to 8 KiB, three times that percent-encoded
	maxBody           = "64K"    // no query has a body
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	idleTimeout       = 2 * time.Minute
	sendTimeout       = 60 * time.Second // to send an answer to a slow client, beyond the request's own time
	packAbove         = 4 << 10          // bytes; smaller answers are not worth the work
)

// Server is one API process. Make it with [New], then [Server.Run] it.
type Server struct {
	cfg      Config
	logger   *slog.Logger
	live     *live.Service // nil for none
	draining atomic.Bool
	ready    *readiness

	public, metrics             *http.Server
	publicListener, metricsConn net.Listener
}

// New opens both listeners and mounts every route; nothing is served before Run.
// A Server that is not run must be closed.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, logger: deps.Logger, live: deps.Live, ready: newReadiness(deps.Checks, deps.Logger)}
	if err := s.listen(); err != nil {
		return nil, err
	}
	identity, err := newIdentity(cfg.PublicURL, s.Addr())
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	measures, err := newMeasures(deps.Metrics)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register metrics: %w", err), s.Close())
	}
	limits, err := traffic.NewLimits(cfg.Concurrency, deps.Metrics)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register metrics: %w", err), s.Close())
	}
	routes, err := s.routes(deps, identity, measures, limits)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.public = &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + cfg.RequestTimeout + sendTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(deps.Logger.Handler(), slog.LevelDebug),
	}
	s.metrics = &http.Server{
		Handler:           s.operatorRoutes(deps),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.public.ErrorLog,
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	c.Listen = cmp.Or(c.Listen, ":3000")
	c.MetricsListen = cmp.Or(c.MetricsListen, ":9090")
	c.Version = cmp.Or(c.Version, "dev")
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 10*time.Second)
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 15*time.Second)
	if c.Concurrency == nil {
		c.Concurrency = traffic.Concurrency
	}
	return c
}

func (s *Server) listen() (err error) {
	if s.publicListener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	if s.metricsConn, err = net.Listen("tcp", s.cfg.MetricsListen); err != nil {
		return errors.Join(fmt.Errorf("listen for metrics: %w", err), s.publicListener.Close())
	}
	return nil
}

// Handlers are what is served at both addresses, for who asks without a network.
func (s *Server) Handlers() (public, operator http.Handler) {
	return s.public.Handler, s.metrics.Handler
}

// Addr is the public address listened on, host and port.
func (s *Server) Addr() string { return s.publicListener.Addr().String() }

// MetricsAddr is the operator's address listened on, host and port.
func (s *Server) MetricsAddr() string { return s.metricsConn.Addr().String() }

// routes puts the middleware around every path that the public address has.
func (s *Server) routes(deps Deps, id identity, m *measures, limits *traffic.Limits) (http.Handler, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Logger.SetOutput(discard{})
	e.HTTPErrorHandler = xrpc.ErrorHandler(s.logger)
	e.IPExtractor = clientAddress(s.cfg.TrustedProxies)
	e.Use(
		requestID,
		guarded(strings.HasPrefix(id.endpoint, "https:")),
		observe(s.logger, m),
		traced(deps.streams),
		recoverPanics,
		crossOrigin(s.cfg.Origins),
		middleware.BodyLimit(maxBody),
		compressed(packAbove),
		deadline(s.cfg.RequestTimeout, deps.streams),
		identify(s.callers(deps, id), deps.Quotas, groupsOf(deps)),
		admit(limits, groupsOf(deps)),
	)
	get(e, "/health", answerJSON(map[string]string{"status": "ok"}))
	get(e, "/ready", s.answerReady)
	if deps.XRPC == nil {
		return e, nil
	}
	deps.XRPC.Mount(e)
	if deps.Live != nil {
		deps.Live.Mount(e)
	}
	if deps.REST != nil {
		deps.REST.Mount(e)
		if err := deps.REST.MountDocs(e); err != nil {
			return nil, err
		}
	}
	get(e, "/xrpc/_health", answerJSON(map[string]string{"version": s.cfg.Version}))
	get(e, "/.well-known/did.json", answerJSON(id.document()))
	get(e, "/robots.txt", answerText(robots))
	get(e, "/", answerText(landing(id, deps.XRPC.Queries())))
	return e, nil
}

// streams tells whether a request is answered by something that sees to its time itself.
func (d *Deps) streams(c echo.Context) bool {
	return d.REST != nil && d.REST.Streams(c) || d.Live != nil && d.Live.Streams(c)
}

// callers tells who asks; nil if nobody can prove it.
func (s *Server) callers(deps Deps, id identity) *caller.Callers {
	if deps.Directory == nil {
		return nil
	}
	return caller.New(caller.Config{DID: id.did, Fragment: serviceFragment, Directory: deps.Directory, Admins: s.cfg.Admins, Premium: s.cfg.Premium})
}

// get mounts h for GET and HEAD.
func get(e *echo.Echo, path string, h echo.HandlerFunc) {
	e.GET(path, h)
	e.HEAD(path, h)
}

// clientAddress reads a client's address from X-Forwarded-For where a trusted
// proxy set it, and from the connection otherwise.
func clientAddress(trusted []netip.Prefix) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range trusted {
		p = p.Masked()
		options = append(options, echo.TrustIPRange(&net.IPNet{
			IP:   p.Addr().AsSlice(),
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		}))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}

// publicOrigin checks a configured PublicURL, or makes one for this machine.
func publicOrigin(configured, addr string) (*url.URL, error) {
	if configured == "" {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("public URL from listening address %q: %w", addr, err)
		}
		configured = "http://localhost:" + port
	}
	u, err := url.Parse(configured)
	if err != nil {
		return nil, fmt.Errorf("public URL: %w", err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("public URL %q: expected scheme and host alone, such as https://layers.example", configured)
	}
	u.Path = ""
	return u, nil
}

// discard swallows what echo itself would print: everything that matters is
// logged through slog.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
