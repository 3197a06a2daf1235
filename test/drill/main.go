// Command drill loses everything and gets it back: it fills the real stores through the
// indexer from a simulated network, backs them up with the scripts of
// k8s/disaster-recovery, destroys them while more is written, and restores them in each
// of the ways that docs/operations/disaster-recovery.md describes. After each, what
// the stores hold is compared with what the network's accounts have written, and the
// stores with each other (layers verify). It prints how long each way took, and what was lost.
//
//	go run ./test/stores -- go run ./test/drill -records 100000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	cfg := Config{Out: os.Stderr}
	flag.IntVar(&cfg.Records, "records", 20_000, "records that the network has at first")
	flag.IntVar(&cfg.PerCommit, "per-commit", 10, "records in a commit")
	flag.Float64Var(&cfg.Rate, "rate", 50, "records a second that are written while the database is lost")
	flag.StringVar(&cfg.Program, "program", "", "the layers program; built from this tree without it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	figures, err := Run(ctx, cfg)
	stop()
	fmt.Print(figures) // those of the steps before a failure, too
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
}
