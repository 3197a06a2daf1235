package embedpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	embedded "github.com/fergusstrange/embedded-postgres"

	"github.com/layers-pub/layers-appview/internal/cache"
)

// Version is the PostgreSQL that runs.
const Version = "17.11.0"

// install returns the directory of PostgreSQL's build, and gets it the first time.
func install(ctx context.Context, logger *slog.Logger) (string, error) {
	name := fmt.Sprintf("postgres-%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH)
	entry, err := cache.Install(name, func(dir string) error {
		logger.InfoContext(ctx, "getting PostgreSQL", "version", Version)
		fetched := make(chan error, 1)
		go func() { fetched <- fetch(filepath.Join(dir, "build"), filepath.Join(dir, "scratch")) }()
		select {
		case err := <-fetched:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return filepath.Join(entry, "build"), err
}

// fetch unpacks the build into dir, and removes the directory scratch again. The library that knows where builds are has no
// call for that alone, only one that gets the build and then starts a server. So
// we ask it to start one on a data directory that is none: it gets the build and
// fails, and what counts is whether the programs are there.
func fetch(dir, scratch string) error {
	noData := filepath.Join(scratch, "data")
	if err := os.MkdirAll(noData, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(noData, "PG_VERSION"), []byte("17\n"), 0o600); err != nil {
		return err
	}
	startErr := embedded.NewDatabase(embedded.DefaultConfig().
		Version(Version).
		Port(0).
		CachePath(filepath.Join(scratch, "download")).
		RuntimePath(filepath.Join(scratch, "runtime")).
		BinariesPath(dir).
		DataPath(noData).
		Logger(io.Discard)).Start()
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, "bin", program)); err != nil {
			return fmt.Errorf("get PostgreSQL %s: %w", Version, errors.Join(startErr, err))
		}
	}
	return os.RemoveAll(scratch)
}
