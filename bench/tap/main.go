// Command tap measures `layers indexer` beside tap, the synchronisation tool of
// bluesky-social/indigo (cmd/tap), which whoever runs this has built: both follow the
// same network, and catch up with the same signed commits.
//
//	go run ./test/stores -only postgres,redis -- go run ./bench/tap -tap /path/of/tap
//
// First each of them gets to know every repository, and is stopped. Then the commits
// are made and signed. Then each is started again, one after the other, and its time
// runs from the moment at which it subscribes until all commits are verified and in its
// database: PostgreSQL for ours, with whole records, references and the outbox; SQLite, or
// the same PostgreSQL, for tap, with names and CIDs, and the records in its outbox until
// a client has taken them. In the end both have to be at the head of every repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
)

type options struct {
	tap, program               string
	commits, perCommit, rounds int
	authors                    int
}

func main() {
	var o options
	flag.StringVar(&o.tap, "tap", "", "`path` of tap, built from bluesky-social/indigo/cmd/tap")
	flag.StringVar(&o.program, "program", "", "`path` of the layers program; built from the tree by default")
	flag.IntVar(&o.commits, "commits", 10_000, "to catch up with")
	flag.IntVar(&o.perCommit, "per-commit", 1, "records in a commit")
	flag.IntVar(&o.authors, "authors", 50, "accounts that write them")
	flag.IntVar(&o.rounds, "rounds", 1, "measurements, each with a network of its own")
	flag.Parse()
	program.Exit(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	if o.tap == "" {
		return errors.New("-tap is not given: build it in a checkout of github.com/bluesky-social/indigo with go build ./cmd/tap")
	}
	path, remove, err := program.Given(ctx, o.program)
	if err != nil {
		return err
	}
	defer remove()
	o.program = path
	for i := range o.rounds {
		if err := round(ctx, o, uint64(i+1)); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return nil
}

// follower is a program that follows the network.
type follower interface {
	name() string
	// start runs it until stop; it goes on where it was before.
	start(ctx context.Context) error
	stop() error
	// caughtUp tells whether it can have so many commits and be at the network's last
	// event, by a question that costs it little.
	caughtUp(ctx context.Context, missed int) (bool, error)
	// compare is an error unless it is at the head of every repository.
	compare(ctx context.Context) error
	// used is its own CPU time so far, without that of a database server.
	used() time.Duration
	drop() error
}

func round(ctx context.Context, o options, seed uint64) (err error) {
	n, err := newNetwork(o, seed)
	if err != nil {
		return err
	}
	defer n.close()
	dir, err := os.MkdirTemp("", "layers-bench-tap-")
	if err != nil {
		return fmt.Errorf("make a directory for tap: %w", err)
	}
	defer os.RemoveAll(dir)
	var followers []follower
	var known []backlog
	defer func() {
		for _, f := range followers {
			err = errors.Join(err, f.drop())
		}
	}()
	for _, open := range []func() (follower, error){
		func() (follower, error) { return newTap(ctx, o, n, "sqlite://"+dir+"/tap.db", nil) },
		func() (follower, error) { return newTapOnPostgres(ctx, o, n) },
		func() (follower, error) { return newLayers(ctx, o, n) },
	} {
		f, err := open()
		if err != nil {
			return err
		}
		followers = append(followers, f)
		at, err := n.introduce(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: getting to know the network: %w", f.name(), err)
		}
		known = append(known, at)
	}
	if err := n.write(); err != nil {
		return err
	}
	rates := make([]float64, len(followers))
	for i, f := range followers {
		missed := n.since(known[i])
		took, used, err := n.measure(ctx, f, missed)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name(), err)
		}
		rates[i] = float64(missed.operations) / took.Seconds()
		fmt.Printf("%-16s %6d commits, %6d operations in %6.1f s: %6.0f commits/s, %6.0f operations/s, %5.0f µs of its own CPU a commit\n", f.name(),
			missed.commits, missed.operations, took.Seconds(), float64(missed.commits)/took.Seconds(), rates[i],
			float64(used.Microseconds())/float64(missed.commits))
	}
	last := len(followers) - 1
	for i, f := range followers[:last] {
		fmt.Printf("layers is %.2f times as fast as %s\n", rates[last]/rates[i], f.name())
	}
	return nil
}
