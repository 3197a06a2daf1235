package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// ourselves runs what needs no other account.
var ourselves *daemon.Account

// native is a server about to be started natively: whom it runs as, its throwaway
// directory, the part of that which it may write to, and its port.
type native struct {
	account *daemon.Account
	dir     string
	home    string
	port    int
}

func newNative(name string) (*native, error) {
	account, err := daemon.Unprivileged()
	if err != nil {
		return nil, err
	}
	port, err := daemon.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := account.TempDir("layers-" + name + "-")
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	return &native{account: account, dir: dir, home: home, port: port}, nil
}

// write puts a file of ours into the server's home.
func (n *native) write(name, content string) error {
	path := filepath.Join(n.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// startTime is how long a server may take to answer: a JVM starts, on a machine that does
// much else.
const startTime = 10 * time.Minute

// run starts the server and waits until it answers. The directory goes with the
// server, or at once if it does not come up.
func (n *native) run(ctx context.Context, spec daemon.Spec, probe func(context.Context) error) (*running, error) {
	if err := n.account.OwnTree(n.home); err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir))
	}
	spec.Account, spec.Dir, spec.Scratch = n.account, n.home, n.dir
	spec.Log = filepath.Join(n.dir, "output.log")
	spec.Grace = time.Second // there is nothing to save
	s := &server{spec: spec, dir: n.dir, port: n.port, died: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir))
	}
	if err := s.process.Ready(ctx, startTime, probe); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return &running{stop: s.remove, died: s.died, log: func() string { return daemon.Tail(spec.Log) }, turn: s}, nil
}
