// Package cache keeps what costs time to get, downloads above all, so that it is
// got once: an entry is there whole or not at all, also when the program that was
// getting it is killed halfway, and several programs may ask for it at once.
package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// rootDir is the cache of the superuser where its own cannot be used.
const rootDir = "/var/cache/layers"

// Dir is the directory that holds the entries: layers in $XDG_CACHE_HOME, or in
// ~/.cache without that variable. For the superuser, who has servers run by an
// unprivileged account, it is /var/cache/layers if that account could not enter
// the usual one. The directory exists on return.
func Dir() (string, error) {
	dir, err := usualDir()
	if os.Geteuid() == 0 && (err != nil || !Open(dir)) {
		dir, err = rootDir, nil
	}
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

func usualDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Abs(filepath.Join(base, "layers"))
}

// Open says whether every account may enter dir: whether it, so far as it exists,
// and each directory above it let others pass.
func Open(dir string) bool {
	for {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil || info.Mode().Perm()&0o001 == 0:
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// Install returns the directory of the entry called name. Where there is none yet
// it has fill make it, in an empty directory that takes its place once fill has
// returned without error and every account may read it. The name must change when
// the content would: it carries a version or a hash.
func Install(name string, fill func(dir string) error) (string, error) {
	root, err := Dir()
	if err != nil {
		return "", err
	}
	entry := filepath.Join(root, name)
	if exists(entry) {
		return entry, nil
	}
	unlock, err := lock(entry + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(entry) { // made by another program while we waited
		return entry, nil
	}
	if err := install(entry, fill); err != nil {
		return "", fmt.Errorf("install %s: %w", name, err)
	}
	return entry, nil
}

// install makes the entry. The caller holds its lock, so what lies in the
// half-made directory was left by a program that died.
func install(entry string, fill func(dir string) error) error {
	partial := entry + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.Mkdir(partial, 0o755); err != nil {
		return err
	}
	if err := fill(partial); err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	if err := publish(partial); err != nil {
		return err
	}
	return os.Rename(partial, entry)
}

// publish lets every account read the tree, and run what its owner may run,
// whatever the umask was when it was written.
func publish(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
