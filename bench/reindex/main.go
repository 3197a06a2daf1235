// Command reindex measures how fast the projections are built anew from PostgreSQL:
// records a second into Elasticsearch and Neo4j, each alone and both together, while
// readers ask an API process for records and check every answer.
//
//	go run ./test/stores -only postgres,elasticsearch,neo4j -- go run ./bench/reindex
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/bench/usage"
	"github.com/layers-pub/layers-appview/bench/world"
	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/record"
)

func main() {
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	debug.SetGCPercent(400) // as `layers reindex` does
	b := &bench{}
	flag.IntVar(&b.records, "records", 50_000, "how many records there are")
	flag.StringVar(&b.only, "only", "search,graph,both", "what to measure")
	flag.IntVar(&b.readers, "readers", 0, "connections that ask an API process and the served projections in a second rebuild")
	flag.Float64Var(&b.rate, "read-rate", 200, "records a second that the readers ask for, of each source")
	flag.StringVar(&b.profile, "cpuprofile", "", "write a CPU profile of the rebuild there")
	flag.Parse()
	return b.run(ctx)
}

type bench struct {
	records, readers int
	rate             float64
	only, profile    string
	world            *world.World
}

func (b *bench) run(ctx context.Context) (err error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return err
	}
	if b.world, err = world.Open(ctx, servers); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.world.Drop()) }()
	began := time.Now()
	if err := b.world.Fill(ctx, b.records, nil); err != nil {
		return err
	}
	fmt.Printf("%d records written to PostgreSQL in %s\n", len(b.world.CIDs), time.Since(began).Round(time.Second))
	for _, name := range strings.Split(b.only, ",") {
		targets := map[string][]record.Target{"search": {record.Search}, "graph": {record.Graph}, "both": {record.Search, record.Graph}}[name]
		if targets == nil {
			return fmt.Errorf("-only: %q is not search, graph or both", name)
		}
		if err := b.measure(ctx, name, targets, 0); err != nil {
			return err
		}
		if b.readers > 0 { // again, now that there is something served
			if err := b.measure(ctx, name+", readers", targets, b.readers); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure rebuilds and prints how that went.
func (b *bench) measure(ctx context.Context, name string, targets []record.Target, readers int) error {
	if b.profile != "" {
		f, err := os.Create(b.profile + "." + name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	load, err := read(ctx, b.world, readers, b.rate, targets)
	if err != nil {
		return err
	}
	meter := usage.Measure(b.world.Servers, load.processes())
	began := time.Now()
	filled := map[record.Target]time.Duration{}
	var mu sync.Mutex
	var cfgs []rebuild.Config
	for _, target := range targets {
		cfgs = append(cfgs, b.world.Rebuild(target, func(p rebuild.Progress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Step == "fill" {
				filled[target] = time.Since(began)
			}
		}))
	}
	all, err := rebuild.RunAll(ctx, cfgs...)
	if err != nil {
		return err
	}
	for _, done := range all {
		took := filled[done.Target]
		fmt.Printf("%-6s %-6s %d records, filled in %s: %.0f/s; all in use and the old ones gone after %s\n", name, done.Target, done.Done,
			took.Round(time.Millisecond), float64(done.Done)/took.Seconds(), time.Since(began).Round(time.Millisecond))
	}
	pprof.StopCPUProfile()
	took, used := time.Since(began).Seconds(), meter.Stop()
	for _, process := range slices.Sorted(maps.Keys(used)) {
		fmt.Printf("%-6s CPU of %-14s %4.0f µs a record, %3.0f %% of a core\n", name, process, used[process]*1e6/float64(len(b.world.CIDs)), used[process]/took*100)
	}
	if err := load.stop(); err != nil {
		return err
	}
	report, err := reconcile.Run(ctx, b.world.Compared(), reconcile.Options{Targets: targets})
	if err != nil {
		return err
	}
	if !report.Clean() {
		return fmt.Errorf("the projections differ: %v", report.Differences[:min(5, len(report.Differences))])
	}
	fmt.Printf("%-6s compared: no difference\n", name)
	return nil
}
