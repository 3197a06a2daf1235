package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/cache"
)

// useCache gives the test a cache of its own that every account may enter.
func useCache(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cache-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Setenv("XDG_CACHE_HOME", dir)
	return filepath.Join(dir, "layers")
}

func writeTool(dir string) error {
	return os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\n"), 0o700)
}

func TestInstallKeepsWhatWasMade(t *testing.T) {
	root := useCache(t)
	entry, err := cache.Install("tool-1", writeTool)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "tool-1"), entry)
	info, err := os.Stat(filepath.Join(entry, "tool"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm(), "every account may run it")

	again, err := cache.Install("tool-1", func(string) error { return errors.New("made twice") })
	require.NoError(t, err)
	require.Equal(t, entry, again)
}

func TestInstallLeavesNothingHalfMade(t *testing.T) {
	root := useCache(t)
	broken := errors.New("connection lost")
	_, err := cache.Install("tool-1", func(dir string) error {
		return errors.Join(writeTool(dir), broken)
	})
	require.ErrorIs(t, err, broken)
	require.NoDirExists(t, filepath.Join(root, "tool-1"))

	// A program killed while it filled the entry leaves this behind.
	require.NoError(t, os.MkdirAll(filepath.Join(root, "tool-1.partial", "old"), 0o755))
	entry, err := cache.Install("tool-1", writeTool)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(entry, "old"))
	require.FileExists(t, filepath.Join(entry, "tool"))
}

func TestInstallOnceForAll(t *testing.T) {
	useCache(t)
	var made atomic.Int32
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = cache.Install("tool-1", func(dir string) error {
				made.Add(1)
				return writeTool(dir)
			})
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 1, made.Load())
}

func TestDirCanBeEnteredByTheServersAccount(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	t.Setenv("XDG_CACHE_HOME", closed)
	dir, err := cache.Dir()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.True(t, cache.Open(dir), "%s is closed to the account that runs servers", dir)
	} else {
		require.Equal(t, filepath.Join(closed, "layers"), dir)
	}
	require.False(t, cache.Open(filepath.Join(closed, "below")))
}
