package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// controlVariable carries the URL at which the command ends and starts stores that we
// have started:
//
//	GET  /redis        the process, by its ID; nothing while there is none
//	POST /redis/stop   asks it to end (SIGTERM)
//	POST /redis/kill   ends it (SIGKILL)
//	POST /redis/start  starts it again, with what it has stored and on its port
//
// stop and kill answer when the process is gone and its port refuses connections;
// start answers when the process runs, before the store does. PostgreSQL, when it runs
// natively, is not among them.
const controlVariable = "LAYERS_TEST_STORES_CONTROL"

// endTime is how long a store may take to end.
const endTime = 2 * time.Minute

// switchable is a store that can be ended and started again.
type switchable interface {
	start(ctx context.Context) error
	end(ctx context.Context, signal syscall.Signal) error
	// id names the store's process, as no later one of it is named; empty for none.
	id(ctx context.Context) (string, error)
}

// control serves what the command may do to stores.
type control struct {
	listener net.Listener
	stores   map[string]switchable
}

func startControl(stores map[string]switchable) (*control, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for what the command does to stores: %w", err)
	}
	c := &control{listener, stores}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{store}", c.serve(func(ctx context.Context, s switchable, w io.Writer) error {
		id, err := s.id(ctx)
		_, _ = io.WriteString(w, id)
		return err
	}))
	ending := func(signal syscall.Signal) http.HandlerFunc {
		return c.serve(func(ctx context.Context, s switchable, _ io.Writer) error { return s.end(ctx, signal) })
	}
	mux.HandleFunc("POST /{store}/stop", ending(syscall.SIGTERM))
	mux.HandleFunc("POST /{store}/kill", ending(syscall.SIGKILL))
	mux.HandleFunc("POST /{store}/start", c.serve(func(ctx context.Context, s switchable, _ io.Writer) error { return s.start(ctx) }))
	go func() {
		if err := http.Serve(listener, mux); !errors.Is(err, net.ErrClosed) {
			progress("stores cannot be stopped any more: %v", err)
		}
	}()
	return c, nil
}

func (c *control) serve(act func(context.Context, switchable, io.Writer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, ok := c.stores[r.PathValue("store")]
		if !ok {
			http.Error(w, "no such store was started here", http.StatusNotFound)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), endTime)
		defer cancel()
		if err := act(ctx, s, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

func (c *control) url() string { return "http://" + c.listener.Addr().String() }

func (c *control) close() error { return c.listener.Close() }
