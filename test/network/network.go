// Package network starts a small AT Protocol network of the real servers for a
// test: one PLC directory and two PDSes, on loopback (servers/ is the program that
// runs them). Accounts on them are made and used through a small client. It needs
// Node 20 and npm; the servers' packages are got the first time and kept in the
// cache.
package network

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

//go:embed servers
var embedded embed.FS

const (
	startTime = 2 * time.Minute
	stopTime  = 15 * time.Second
)

// Network is a running network.
type Network struct {
	PLC  string  // URL of the PLC directory
	PDSs [2]*PDS // handles of their accounts end in .pds1.test and .pds2.test
}

// Start starts a network that ends with the test. It fails the test if it cannot,
// and shows the end of the servers' log.
func Start(t testing.TB) *Network {
	t.Helper()
	n, stop, err := start(t.Context())
	if err != nil {
		t.Fatalf("start an AT Protocol network: %v", err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop the AT Protocol network: %v", err)
		}
	})
	return n
}

func start(ctx context.Context) (_ *Network, stop func() error, err error) {
	modules, err := install(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "layers-network-")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := unpack(dir, modules); err != nil {
		return nil, nil, err
	}
	s, err := run(dir)
	if err != nil {
		return nil, nil, err
	}
	n, err := s.ready(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w; the end of the servers' log:\n%s", err, daemon.Tail(s.log)), s.stop())
	}
	return n, func() error { return errors.Join(s.stop(), os.RemoveAll(dir)) }, nil
}

// unpack lays the program into dir, beside the packages that it uses.
func unpack(dir, modules string) error {
	program, err := fs.Sub(embedded, "servers")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, program); err != nil {
		return err
	}
	return os.Symlink(modules, filepath.Join(dir, "node_modules"))
}

// servers is the Node process that runs all of them. It ends when its standard
// input does, and so with us.
type servers struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Reader
	log   string
}

func run(dir string) (*servers, error) {
	s := &servers{log: filepath.Join(dir, "servers.log")}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.Command("node", filepath.Join(dir, "main.mjs"), filepath.Join(dir, "data"))
	s.cmd.Stderr = log
	s.cmd.WaitDelay = stopTime
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.lines = bufio.NewReader(stdout)
	return s, s.cmd.Start()
}

// ready waits for the line that says where the servers are.
func (s *servers) ready(ctx context.Context) (*Network, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	killed := context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })
	defer killed()
	line, err := s.lines.ReadBytes('\n')
	if err != nil {
		return nil, errors.Join(errors.New("the servers ended before they were ready"), ctx.Err())
	}
	var at struct {
		PLC  string `json:"plc"`
		PDSs []*PDS `json:"pdses"`
	}
	if err := json.Unmarshal(line, &at); err != nil {
		return nil, fmt.Errorf("read where the servers are: %w", err)
	}
	if len(at.PDSs) != 2 {
		return nil, fmt.Errorf("the servers tell of %d PDSes, not 2", len(at.PDSs))
	}
	return &Network{PLC: at.PLC, PDSs: [2]*PDS(at.PDSs)}, nil
}

// stop lets the servers stop, and kills them if they take too long.
func (s *servers) stop() error {
	_ = s.stdin.Close()
	kill := time.AfterFunc(stopTime, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.Copy(io.Discard, s.lines)
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the servers' process: %w", err)
	}
	return nil
}

// Transport is an HTTP transport that finds the accounts' handles, which no DNS
// has: a request to https://alice.pds1.test goes to the PDS that serves .pds1.test.
// An identity directory resolves the network's handles with it.
func (n *Network) Transport() http.RoundTripper { return handles{n} }

type handles struct{ network *Network }

func (h handles) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, pds := range h.network.PDSs {
		if !strings.HasSuffix(req.URL.Hostname(), pds.Domain) {
			continue
		}
		req = req.Clone(req.Context())
		req.Host = req.URL.Hostname()
		req.URL.Scheme, req.URL.Host = "http", strings.TrimPrefix(pds.URL, "http://")
	}
	return http.DefaultTransport.RoundTrip(req)
}
