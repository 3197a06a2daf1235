package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/layers-pub/layers-appview/appview"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store"
)

// startAPI runs this program once more, as the API alone: so that it shares no
// runtime, and no garbage collector, with the load. It returns the address and
// what stops it.
func startAPI(ctx context.Context, o options) (address string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "-serve", "-database-url", o.database, "-pool", fmt.Sprint(o.pool))
	cmd.Stderr = os.Stderr
	cmd.Env = append([]string{"GOGC=400", "GOMEMLIMIT=512MiB"}, os.Environ()...) // as `layers api` sets them
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	stdin, err := cmd.StdinPipe() // its end tells the API that we are gone
	if err != nil {
		return "", nil, fmt.Errorf("start the API: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, fmt.Errorf("start the API: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start the API: %w", err)
	}
	stop = func() error { return errors.Join(stdin.Close(), cmd.Wait()) }
	address, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("the API did not start: %w", err), stop())
	}
	return strings.TrimSpace(address), stop, nil
}

// serve is the API process: it prints its address, and serves until its input ends.
// It logs as it would in production, to nowhere.
func serve(ctx context.Context, o options, out io.Writer) error {
	c, err := catalog.Load()
	if err != nil {
		return fmt.Errorf("load the lexicons: %w", err)
	}
	pool, err := store.Open(ctx, store.Config{URL: o.database, MaxConns: int32(o.pool), ReadOnly: true})
	if err != nil {
		return err
	}
	defer pool.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	reader := store.NewReader(pool)
	server, err := appview.New(appview.Config{Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0"}, appview.Deps{
		XRPC:    xrpc.New(c, reader, nil),
		Checks:  []appview.Check{{Name: "postgresql", Ping: reader.Ping}},
		Metrics: prometheus.NewRegistry(),
		Logger:  slog.New(slog.NewJSONHandler(null, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, server.Addr())
	fmt.Fprintln(os.Stderr, "metrics and profiles on", server.MetricsAddr())
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return server.Run(ctx)
}
