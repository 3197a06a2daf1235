package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// ServerConfig says how a [Server] behaves. The zero value is usable.
type ServerConfig struct {
	// Alter is the place to put network faults: it is given each frame as it is
	// about to be sent to a subscriber, and returns what to send instead: nothing,
	// the frame, another, or several. It may be called from several goroutines.
	Alter func(frame Frame) [][]byte
	// Subscribe is asked at the beginning of each subscription for what its frames
	// go through before Alter. Package fault has faults to put there.
	Subscribe func(cursor int64) Delivery
	// Wrap stands around all requests, those for identities and subscriptions
	// included: the place for faults of HTTP.
	Wrap func(http.Handler) http.Handler
	// Ping is how often subscribers are pinged. Zero means every 30 seconds.
	Ping time.Duration
	// Logger reports failures of the server's own. Nil discards them.
	Logger *slog.Logger
}

// Delivery is what the frames of one subscription go through: it is given each
// frame in turn and returns what to send in its place. It may take its time, until
// ctx ends. An error ends the connection, after the frames that come with it.
type Delivery func(ctx context.Context, frame Frame) ([]Frame, error)

// Server serves a world, or a recording of one, as PLC directory, PDS and relay on
// one address.
type Server struct {
	cfg    ServerConfig
	source source
	http   *http.Server
	url    string

	stop    context.CancelFunc
	stopped chan struct{}
	streams sync.WaitGroup // subscriptions, which http.Server does not wait for
}

// source is what is served.
type source interface {
	stream() *frameLog
	document(did syntax.DID, endpoint string) (didDocument, error)
	resolve(handle syntax.Handle) (syntax.DID, error)
}

// NewServer makes a server of the world. Start it, and stop it in the end.
func NewServer(w *World, cfg ServerConfig) *Server {
	s := newServer(w, cfg)
	s.http.Handler = s.routes(w)
	if cfg.Wrap != nil {
		s.http.Handler = cfg.Wrap(s.http.Handler)
	}
	return s
}

func newServer(from source, cfg ServerConfig) *Server {
	if cfg.Ping == 0 {
		cfg.Ping = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, source: from, stopped: make(chan struct{}),
		http: &http.Server{ReadHeaderTimeout: 10 * time.Second}}
}

// Start listens on addr, such as "127.0.0.1:0", and serves from then on.
func (s *Server) Start(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for the simulated network: %w", err)
	}
	s.url = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	go func() {
		defer close(s.stopped)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("simulated network stopped", "error", err)
		}
	}()
	return nil
}

// URL is the address of a started server, such as "http://127.0.0.1:4000": the
// PLC directory's, the PDS's in every DID document, and, with ws for http, the
// relay's.
func (s *Server) URL() string { return s.url }

// RelayURL is the same address for WebSockets.
func (s *Server) RelayURL() string { return "ws" + s.url[len("http"):] }

// Stop ends all connections and returns when the last is gone. A server that was
// never started needs no stopping.
func (s *Server) Stop() error {
	if s.stop == nil {
		return nil
	}
	s.stop()
	err := s.http.Close()
	<-s.stopped
	s.streams.Wait()
	return err
}

func (s *Server) routes(w *World) *http.ServeMux {
	mux := http.NewServeMux()
	s.identityRoutes(mux)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.subscribeRepos", s.subscribe)
	mux.HandleFunc("GET /xrpc/_health", func(out http.ResponseWriter, _ *http.Request) {
		writeJSON(out, map[string]string{"version": "simulate"})
	})
	if w != nil {
		(&host{world: w, url: s.URL}).routes(mux)
	}
	mux.HandleFunc("/xrpc/", func(out http.ResponseWriter, _ *http.Request) {
		writeError(out, &xrpcError{http.StatusNotImplemented, "MethodNotImplemented", "no such method here"})
	})
	return mux
}

// xrpcError is an error in the form that XRPC answers with.
type xrpcError struct {
	status  int
	name    string
	message string
}

func (e *xrpcError) Error() string { return e.name + ": " + e.message }

func invalid(format string, args ...any) error {
	return &xrpcError{http.StatusBadRequest, "InvalidRequest", fmt.Sprintf(format, args...)}
}

func writeJSON(out http.ResponseWriter, value any) {
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(value) // the client is gone; nobody to tell
}

func writeError(out http.ResponseWriter, err error) {
	failure := &xrpcError{http.StatusInternalServerError, "InternalServerError", err.Error()}
	errors.As(err, &failure)
	out.Header().Set("Content-Type", "application/json")
	out.WriteHeader(failure.status)
	_ = json.NewEncoder(out).Encode(map[string]string{"error": failure.name, "message": failure.message})
}
