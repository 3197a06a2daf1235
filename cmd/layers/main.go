// Command layers is the Layers appview: the indexer that follows the AT Protocol
// network, the API that answers from what it indexed, and the tools to operate both.
// This package alone wires the others together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"
)

// version is set when the program is built for a release.
var version = "dev"

func main() {
	if err := newApp(os.Stdout, os.Stderr).Run(interruptible(context.Background()), os.Args); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
}

// interruptible ends the context on the first SIGINT or SIGTERM, which lets what
// runs drain; the second ends the process at once.
func interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(130)
	}()
	return ctx
}

func newApp(out, errOut io.Writer) *cli.Command {
	return &cli.Command{
		Name:    "layers",
		Usage:   "index linguistic annotation on the AT Protocol and answer questions about it",
		Version: version,
		Description: "Start with `layers dev`: it needs nothing, runs everything in one process on a simulated network,\n" +
			"and prints addresses to try. In production run `layers migrate` once, one `layers indexer`, and as many\n" +
			"`layers api` as the load asks for. Every flag has an environment variable, named in `layers COMMAND --help`.",
		Writer:    out,
		ErrWriter: errOut,
		Commands: []*cli.Command{
			devCommand(), apiCommand(), indexerCommand(), workerCommand(),
			migrateCommand(), backfillCommand(), verifyCommand(), checkCommand(), recoverCommand(), reindexCommand(), deadLetterCommand(), statsCommand(), auditCommand(), simulateCommand(), healthCommand(),
		},
	}
}
