// Command k6 measures what many readers at once get from the API: faceted searches for
// annotations and neighbourhoods in the graph, each alone and with ingest beside it.
//
//	go run ./test/stores -- go run ./bench/k6
//
// It fills the stores with 200,000 records that have 1,000,000 annotations, runs the
// real `layers api` over them, and has k6 (built from its source, in the cache) ask.
// bench/README.md tells how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
)

type options struct {
	records, annotations int
	searches, graphs     int
	different            int
	duration, warmUp     time.Duration
	only                 string
	program              string
}

func main() {
	var o options
	flag.IntVar(&o.records, "records", 200_000, "how many records there are")
	flag.IntVar(&o.annotations, "annotations", 1_000_000, "how many annotations these have, about")
	flag.IntVar(&o.searches, "searches", 100, "connections that search annotations")
	flag.IntVar(&o.graphs, "graphs", 50, "connections that ask for neighbourhoods of three hops")
	flag.IntVar(&o.different, "different", 2_000, "how many different questions there are of each kind")
	flag.DurationVar(&o.duration, "duration", 30*time.Second, "of each measurement")
	flag.DurationVar(&o.warmUp, "warm-up", 45*time.Second, "so long both go on before anything is measured beside ingest, for the compilers of the stores")
	flag.StringVar(&o.only, "only", "search,graph,search+ingest,graph+ingest,search+kept,graph+kept", "what to measure, in this order; `kinds` with ingest need theirs alone before them")
	flag.StringVar(&o.program, "program", "", "`path` of the layers program; built from the tree by default")
	flag.Parse()
	program.Exit(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) (err error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return err
	}
	b := &bench{options: o, alone: map[string]answers{}}
	if b.k6, err = install(ctx); err != nil {
		return err
	}
	var remove func()
	if b.program, remove, err = program.Given(ctx, o.program); err != nil {
		return err
	}
	defer remove()
	if err := b.open(ctx, servers); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.world.Drop()) }()
	if b.api, err = b.serve(ctx, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.api.Stop()) }()
	if b.kept, err = b.serve(ctx, true); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.kept.Stop()) }()
	b.header()
	for _, name := range strings.Split(o.only, ",") {
		if err := b.measure(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Printf("peak memory of the API: %.0f MiB, keeping answers %.0f MiB\n", program.PeakMemory(b.api.PID()), program.PeakMemory(b.kept.PID()))
	return nil
}
