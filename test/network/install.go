package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/layers-pub/layers-appview/internal/cache"
	"github.com/layers-pub/layers-appview/internal/daemon"
)

// node is the major version of Node.js that the servers' packages are made for.
const node = "20"

// install returns the directory of the servers' packages. The first time npm gets
// them and compiles one, which takes about two minutes.
func install(ctx context.Context) (string, error) {
	program, err := findNode(ctx)
	if err != nil {
		return "", err
	}
	lock, err := embedded.ReadFile("servers/package-lock.json")
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(lock)
	entry, err := cache.Install("network-node"+node+"-"+hex.EncodeToString(hash[:8]), func(dir string) error {
		for _, name := range []string{"package.json", "package-lock.json"} {
			text, err := embedded.ReadFile("servers/" + name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				return err
			}
		}
		npm := exec.Command("npm", "ci", "--no-audit", "--no-fund")
		npm.Dir, npm.Env = dir, append(os.Environ(), headers(program)...)
		_, err := ourselves.Run(ctx, npm)
		return err
	})
	return filepath.Join(entry, "node_modules"), err
}

// ourselves runs npm and node; neither needs another account.
var ourselves *daemon.Account

// findNode returns the path of the node on the PATH, which must be of the right
// version.
func findNode(ctx context.Context) (string, error) {
	out, err := ourselves.Run(ctx, exec.Command("node", "--print", "process.version + ' ' + process.execPath"))
	if err != nil {
		return "", fmt.Errorf("the network's servers need Node.js %s with npm: %w", node, err)
	}
	version, path, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if !strings.HasPrefix(version, "v"+node+".") {
		return "", fmt.Errorf("the network's servers need Node.js %s, and the node on the PATH is %s", node, version)
	}
	return path, nil
}

// headers has npm compile with the headers that came with the node program, where
// there are any, rather than download them.
func headers(program string) []string {
	dir := filepath.Dir(filepath.Dir(program))
	if _, err := os.Stat(filepath.Join(dir, "include", "node", "node.h")); err != nil {
		return nil
	}
	return []string{"npm_config_nodedir=" + dir}
}
