package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/daemon"
	"github.com/layers-pub/layers-appview/internal/embedpg"
)

// database is a PostgreSQL that archives its log.
type database struct {
	dir      string // of the cluster, with the data in data
	build    string // of PostgreSQL
	port     int
	settings map[string]string
	server   *embedpg.Server
}

// archiveTimeout is how long a segment of the log is filled before it is archived all
// the same. In operation it is a minute.
const archiveTimeout = 5 * time.Second

func newDatabase(dir, build, scripts string, archive bool) (*database, error) {
	port, err := daemon.FreePort()
	if err != nil {
		return nil, err
	}
	d := &database{dir: dir, build: build, port: port, settings: map[string]string{"max_connections": "200", "shared_buffers": "256MB", "wal_level": "replica"}}
	if archive {
		d.settings["archive_mode"] = "on"
		d.settings["archive_timeout"] = strconv.Itoa(int(archiveTimeout.Seconds()))
		d.settings["archive_command"] = filepath.Join(scripts, "archive-wal.sh") + " %p %f"
	}
	return d, nil
}

func (d *database) start(ctx context.Context) (err error) {
	d.server, err = embedpg.Start(context.WithoutCancel(ctx), embedpg.Config{
		DataDir: d.dir, Build: d.build, Port: d.port, Parameters: d.settings, Logger: slog.New(slog.DiscardHandler),
	})
	return err
}

func (d *database) stop() error {
	if d.server == nil {
		return nil
	}
	server := d.server
	d.server = nil
	return server.Stop()
}

// password is the superuser's.
func (d *database) password() string {
	content, _ := os.ReadFile(filepath.Join(d.dir, "password")) // it started with it
	return string(content)
}

func (d *database) data() string { return filepath.Join(d.dir, "data") }

// lose kills the server without a word, and removes all that it has.
func (d *database) lose() error {
	pidFile, err := os.ReadFile(filepath.Join(d.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(pidFile), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-d.server.Done()
	return errors.Join(d.stop(), os.RemoveAll(d.data()))
}

// promoted waits until the server has recovered and takes writes.
func (d *database) promoted(ctx context.Context) error {
	for {
		recovering, err := ask[bool](ctx, d.server.URL(), "SELECT pg_is_in_recovery()")
		if err == nil && !recovering {
			return nil
		}
		select {
		case <-d.server.Done():
			return fmt.Errorf("PostgreSQL ended while it recovered:\n%s", d.server.Log())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL has not recovered (%w, %w):\n%s", ctx.Err(), err, d.server.Log())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ask runs a query that has one value.
func ask[T any](ctx context.Context, url, query string) (value T, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return value, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = conn.QueryRow(ctx, query).Scan(&value)
	return value, err
}

// copyScripts puts the scripts where the server's account can read them, whatever the
// work tree's permissions are.
func copyScripts(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, entry.Name()), content, 0o755) //nolint:gosec // everybody may run it
	})
}

// size is how many bytes the files below a directory have.
func size(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}
