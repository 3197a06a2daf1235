package embedpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// lockWait is how long a server that is just shutting down may hold a cluster.
const lockWait = stopTime + 10*time.Second

// cluster is a directory with all that one server keeps: data, the files of
// PostgreSQL itself; password, of the superuser; lock, held while the server runs.
type cluster struct {
	dir      string
	programs string // directory of PostgreSQL's build
	account  *daemon.Account
	password string
	lock     *os.File
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

// openCluster takes the directory for one server, and makes the cluster in it
// where it has none yet.
func openCluster(ctx context.Context, dir, programs string, account *daemon.Account, logger *slog.Logger) (*cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := account.CanEnter(dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	c := &cluster{dir: dir, programs: programs, account: account}
	if c.lock, err = lock(ctx, filepath.Join(dir, "lock"), logger); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, c.lock.Close())
	}
	return c, nil
}

// prepare makes the cluster, or makes one that was there ready to start again.
func (c *cluster) prepare(ctx context.Context) error {
	if _, err := os.Stat(c.data()); errors.Is(err, fs.ErrNotExist) {
		if err := c.create(ctx); err != nil {
			return fmt.Errorf("make the PostgreSQL cluster in %s: %w", c.dir, err)
		}
	}
	password, err := os.ReadFile(filepath.Join(c.dir, "password"))
	if err != nil {
		return fmt.Errorf("read the cluster's password: %w", err)
	}
	c.password = string(password)
	// The lock says that no server of this cluster lives. A process id left by one
	// that was killed may by now be another process, and keep ours from starting.
	err = os.Remove(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what a killed server left: %w", err)
	}
	return nil
}

// create runs initdb in a directory that becomes the cluster's once it is complete.
func (c *cluster) create(ctx context.Context) error {
	password := filepath.Join(c.dir, "password")
	if err := os.WriteFile(password, []byte(rand.Text()), 0o600); err != nil {
		return err
	}
	partial := filepath.Join(c.dir, "partial")
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.Mkdir(partial, 0o700); err != nil {
		return err
	}
	if err := c.account.Own(password, partial); err != nil {
		return err
	}
	if err := c.initdb(ctx, partial, password); err != nil {
		return err
	}
	return os.Rename(partial, c.data())
}

// initdb makes PostgreSQL's files. The locale is PostgreSQL's own, so text is
// treated alike on every system.
func (c *cluster) initdb(ctx context.Context, dir, password string) error {
	cmd := exec.Command(filepath.Join(c.programs, "bin", "initdb"),
		"--pgdata="+dir, "--username="+superuser, "--pwfile="+password, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
		"--no-instructions")
	cmd.Dir, cmd.Env = dir, environment()
	_, err := c.account.Run(ctx, cmd)
	return err
}

// arguments are the server's.
func (c *cluster) arguments(port int, parameters map[string]string) []string {
	args := []string{
		"-D", c.data(),
		"-c", "port=" + strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=",
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		args = append(args, "-c", name+"="+parameters[name])
	}
	return args
}

// lock takes the lock file, and waits while a server that was left alone shuts
// down. The server inherits the open file, so the lock is held as long as it or
// a process of its own lives, whatever became of the program that started it.
func lock(ctx context.Context, path string, logger *slog.Logger) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data directory's lock: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !told {
			logger.InfoContext(ctx, "another server uses the data directory: waiting for its end", "directory", filepath.Dir(path))
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("data directory %s is in use by another server: %w", filepath.Dir(path), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// environment is ours without the variables that PostgreSQL's programs would obey.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			env = append(env, v)
		}
	}
	return append(env, "LC_ALL=C")
}
