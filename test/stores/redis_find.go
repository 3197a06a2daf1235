package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/layers-pub/layers-appview/internal/cache"
)

const noRedis = "redis-server is not on the PATH: install Redis 7 (macOS: brew install redis), or set LAYERS_TEST_REDIS_URL"

// findRedis returns the server on the PATH, or else one from Debian's packages,
// with the environment that it needs.
func findRedis(ctx context.Context) (program string, env []string, err error) {
	if program, err = exec.LookPath("redis-server"); err == nil {
		return program, os.Environ(), nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", nil, errors.New(noRedis)
	}
	root, err := installRedis(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("%s; Debian's package could not be had: %w", noRedis, err)
	}
	return redisIn(root)
}

// redisIn returns the server unpacked in root, which brings libraries.
func redisIn(root string) (program string, env []string, err error) {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-*", "lib/*-linux-*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return "", nil, err
		}
		dirs = append(dirs, found...)
	}
	env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(dirs, ":"))
	return filepath.Join(root, "usr", "bin", "redis-server"), env, nil
}

// installRedis unpacks Debian's redis-server, and the packages that it needs and
// the system lacks, in the cache. Nothing is installed in the system, so nobody
// need be the superuser, and no service is started.
func installRedis(ctx context.Context) (string, error) {
	release, err := debianRelease()
	if err != nil {
		return "", err
	}
	return cache.Install("redis-"+release+"-"+runtime.GOARCH, func(dir string) error {
		progress("redis: getting Debian's packages")
		scratch := filepath.Join(dir, "apt")
		if err := unpackDebian(ctx, "redis-server", scratch, dir); err != nil {
			return err
		}
		program, env, err := redisIn(dir)
		if err != nil {
			return err
		}
		check := exec.Command(program, "--version")
		check.Env = env
		_, err = ourselves.Run(ctx, check)
		return errors.Join(err, os.RemoveAll(scratch))
	})
}

// unpackDebian unpacks a package with what it depends on into dir. Lists and
// archives lie in scratch, not in the system's directories.
func unpackDebian(ctx context.Context, name, scratch, dir string) error {
	archives := filepath.Join(scratch, "archives")
	for _, d := range []string{"lists/partial", "cache/archives/partial", "archives"} {
		if err := os.MkdirAll(filepath.Join(scratch, d), 0o755); err != nil {
			return err
		}
	}
	apt := func(args ...string) ([]byte, error) {
		cmd := exec.Command("apt-get", append([]string{
			"-o", "Dir::State::Lists=" + filepath.Join(scratch, "lists"),
			"-o", "Dir::Cache=" + filepath.Join(scratch, "cache"),
			"-o", "Debug::NoLocking=true",
		}, args...)...)
		cmd.Dir = archives
		return ourselves.Run(ctx, cmd)
	}
	if _, err := apt("update"); err != nil {
		return err
	}
	plan, err := apt("--simulate", "--no-install-recommends", "install", name)
	if err != nil {
		return err
	}
	if _, err := apt(append([]string{"download"}, planned(plan)...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, p := range packages {
		if _, err := ourselves.Run(ctx, exec.Command("dpkg-deb", "--extract", p, dir)); err != nil {
			return err
		}
	}
	return nil
}

// planned lists the packages that a simulated installation would install.
func planned(plan []byte) []string {
	var names []string
	for line := range strings.Lines(string(plan)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Inst" {
			names = append(names, fields[1])
		}
	}
	return names
}

// debianRelease is the code name of the system's release, such as bookworm.
func debianRelease() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("find the system's release: %w", err)
	}
	for line := range bytes.Lines(text) {
		if name, ok := strings.CutPrefix(string(bytes.TrimSpace(line)), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no VERSION_CODENAME")
}
