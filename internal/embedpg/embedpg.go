// Package embedpg runs a PostgreSQL server of the program's own, for development
// and tests. It gets the server's build itself, once, and needs nothing installed.
// The server listens on loopback only, with a password made for its cluster, and
// never outlives the program. It is run by an unprivileged account if need be:
// PostgreSQL refuses the superuser.
package embedpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

const (
	superuser = "postgres" // PostgreSQL's, and its first database
	startTime = time.Minute
	stopTime  = 30 * time.Second // for the shutdown checkpoint
)

// Config says where and how the server runs. The zero value is a server with
// throwaway data on a free port.
type Config struct {
	// DataDir keeps the data between runs; one server at a time may use it. The
	// unprivileged account must be able to enter the directories above it. If
	// empty, the data lies in a temporary directory that Stop removes.
	DataDir string

	// Build is the directory of a PostgreSQL build, with bin/postgres and bin/initdb. If
	// empty, it is that of [Version], which is got where it is not there yet.
	Build string

	Port       int               // a free one if zero
	Parameters map[string]string // PostgreSQL's settings, such as max_connections
	Logger     *slog.Logger      // slog.Default() if nil
}

// Server is a running PostgreSQL.
type Server struct {
	url      string
	process  *daemon.Process
	cluster  *cluster
	throwOut string // directory that Stop removes; empty to keep
	detach   func() bool
	stop     sync.Once
	stopErr  error
}

// Start gets PostgreSQL if it is not there yet, makes the data directory if it is
// new, and returns once the server answers. The end of ctx stops the server.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start an embedded PostgreSQL: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, cfg Config) (_ *Server, err error) {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	account, err := daemon.Unprivileged()
	if err != nil {
		return nil, err
	}
	programs := cfg.Build
	if programs == "" {
		if programs, err = install(ctx, logger); err != nil {
			return nil, err
		}
	}
	s := &Server{}
	dir := cfg.DataDir
	if dir == "" {
		if dir, err = account.TempDir("layers-postgres-"); err != nil {
			return nil, err
		}
		s.throwOut = dir
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.cluster, err = openCluster(ctx, dir, programs, account, logger); err != nil {
		return nil, err
	}
	if err := s.run(ctx, cfg); err != nil {
		return nil, err
	}
	s.detach = context.AfterFunc(ctx, func() { _ = s.Stop() })
	return s, nil
}

// run starts the server process and waits until it answers.
func (s *Server) run(ctx context.Context, cfg Config) error {
	port := cfg.Port
	if port == 0 {
		var err error
		if port, err = daemon.FreePort(); err != nil {
			return err
		}
	}
	s.url = (&url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.cluster.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     superuser,
		RawQuery: "sslmode=disable",
	}).String()
	process, err := daemon.Start(daemon.Spec{
		Path:    filepath.Join(s.cluster.programs, "bin", "postgres"),
		Args:    s.cluster.arguments(port, cfg.Parameters),
		Dir:     s.cluster.data(),
		Env:     environment(),
		Files:   []*os.File{s.cluster.lock},
		Account: s.cluster.account,
		Log:     filepath.Join(s.cluster.dir, "postgres.log"),
		Signal:  syscall.SIGINT, // PostgreSQL's fast shutdown: does not wait for clients
		Grace:   stopTime,
		Scratch: s.throwOut,
	})
	if err != nil {
		return err
	}
	s.process = process
	return process.Ready(ctx, startTime, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// URL is where a superuser connects. It holds the cluster's password.
func (s *Server) URL() string { return s.url }

// Done is closed when the server has ended, asked or not.
func (s *Server) Done() <-chan struct{} { return s.process.Done() }

// Log is the end of what the server wrote to its log.
func (s *Server) Log() string { return s.process.Tail() }

// Stop shuts the server down and returns once it has ended. Clients are
// disconnected, and their open transactions rolled back. It may be called again.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		s.detach()
		s.stopErr = s.close()
	})
	return s.stopErr
}

// close undoes whatever of a start has been done.
func (s *Server) close() error {
	var errs []error
	if s.process != nil {
		errs = append(errs, s.process.Stop())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.lock.Close())
	}
	if s.throwOut != "" {
		errs = append(errs, os.RemoveAll(s.throwOut))
	}
	return errors.Join(errs...)
}
