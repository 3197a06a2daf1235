// Command stores gets and starts the four real stores, runs a command with their
// addresses in its environment, and stops what it started:
//
//	go run ./test/stores [--only postgres,redis,elasticsearch,neo4j] [--small] [--full-postgres] -- go test ./...
//
// A store whose variable (LAYERS_TEST_DATABASE_URL, ...) is set already is taken as
// it is. The others run in containers (docker/docker-compose.yml) if a Docker
// engine answers, else natively: PostgreSQL as internal/embedpg has it, Redis from
// the PATH or from Debian's packages, Elasticsearch and Neo4j through Maven. What
// is downloaded is kept in the cache of internal/cache; data is thrown away. The
// command can stop single stores and start them again, see [controlVariable].
//
// The exit code is the command's. Progress is told on standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		progress("%v", err)
		code = 1
	}
	os.Exit(code)
}

// run returns the command's exit code. An error means that the command was not
// run, or that something could not be stopped after it.
func run(args []string) (int, error) {
	flags := flag.NewFlagSet("stores", flag.ExitOnError)
	only := flags.String("only", "", "comma-separated `names` of the stores to start; all four without it")
	var kind kind
	flags.BoolVar(&kind.small, "small", false, "start Elasticsearch and Neo4j with half the memory, for a second set beside another")
	flags.BoolVar(&kind.fullPostgres, "full-postgres", false, "start PostgreSQL as distributions have it, compiled for speed and not for size (through Python's package installer); in containers it always is")
	_ = flags.Parse(args)
	if flags.NArg() == 0 {
		return 0, errors.New("name the command to run: go run ./test/stores -- command args…")
	}
	wanted, err := choose(*only)
	if err != nil {
		return 0, err
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go tellWhenAbandoned(signals)

	began := time.Now()
	up, err := startAll(signals, wanted, kind)
	if err != nil {
		return 0, errors.Join(err, up.stop())
	}
	progress("ready after %s", time.Since(began).Round(100*time.Millisecond))
	control, err := startControl(up.turns)
	if err != nil {
		return 0, errors.Join(err, up.stop())
	}
	code, err := runCommand(flags.Args(), append(up.environment(), controlVariable+"="+control.url()), signals)
	return code, errors.Join(err, control.close(), up.stop())
}

// startAll starts the wanted stores; a signal ends that. What did start is
// returned with an error too.
func startAll(signals <-chan os.Signal, wanted []store, kind kind) (*stores, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("stopped by signal: %v", s))
		case <-done:
		}
	}()
	up, err := start(ctx, wanted, kind)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return up, err
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "stores: "+format+"\n", args...)
}
