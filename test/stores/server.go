package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// server is one that runs natively. It can be ended and started again, with its data
// and on its port.
type server struct {
	spec daemon.Spec
	dir  string // goes with us
	port int
	died chan struct{} // closed when it has ended and nobody had asked it to

	mu      sync.Mutex
	process *daemon.Process // nil while it is ended
	keeper  *daemon.Watcher // removes dir should we die while it is ended
}

// start starts the process, which answers some time later.
func (s *server) start(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return errors.New("it has been started already")
	}
	process, err := daemon.Start(s.spec)
	if err != nil {
		return err
	}
	s.process = process
	s.keeper.Dismiss() // the process's own watcher does it from now on
	go s.watch(process)
	return nil
}

func (s *server) watch(process *daemon.Process) {
	<-process.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == process {
		close(s.died)
	}
}

// end ends the process by a signal, and waits until nobody listens on its port.
func (s *server) end(ctx context.Context, signal syscall.Signal) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("it has been ended already")
	}
	if s.keeper, err = daemon.AtDeath("rm", "-rf", "--", s.dir); err != nil {
		return err
	}
	if err := s.process.End(ctx, signal); err != nil {
		return err
	}
	s.process = nil
	for s.listens() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait until port %d is free: %w", s.port, ctx.Err())
		}
	}
	return nil
}

func (s *server) listens() bool {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err == nil {
		_ = conn.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

func (s *server) id(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return "", nil
	}
	return strconv.Itoa(s.process.PID()), nil
}

// remove ends the process, if there is one, and removes all that it has written.
func (s *server) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.process != nil {
		err = s.process.Stop()
		s.process = nil
	}
	err = errors.Join(err, os.RemoveAll(s.dir))
	s.keeper.Dismiss()
	return err
}
