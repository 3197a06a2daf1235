// Command ingest measures the way of a record: from the socket to PostgreSQL,
// Elasticsearch and Neo4j, as verified commits and records a second, with the CPU
// time and the memory that it takes.
//
//	go run ./test/stores -- go run ./bench/ingest
//
// It records streams of signed commits first, in the cache, so that signing is not
// measured. Then it serves one from a process of its own, runs the real `layers
// indexer` over it against the four real stores, each time in a fresh part of
// them, and watches from outside. Next to the rates stand the bare limits of the
// same minute on the same machine: see limits.go. bench/README.md tells how to read
// the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
)

type options struct {
	runs     int
	first    int
	nice     int
	only     string
	modes    string
	scale    float64
	limits   bool
	quiet    time.Duration
	json     string
	profiles string
	program  string
	verbose  bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 1, "how often each measurement is made; the table shows the median, and the least in brackets")
	flag.IntVar(&o.first, "first", 2, "how often the line alone runs before that, on servers that have just been started: shown in a row of its own")
	flag.IntVar(&o.nice, "nice", 10, "how far the indexer gives way to the stores, with which it shares the cores: 0 to 19, as the command nice has it")
	flag.StringVar(&o.only, "only", "single,hundred,large", "comma-separated `streams`: single, hundred, large, relay")
	flag.StringVar(&o.modes, "modes", "apart,together", "comma-separated `modes`: alone, the line without workers; apart, the same, and the workers after it; together, both at once")
	flag.Float64Var(&o.scale, "scale", 1, "size of the streams, as a factor")
	flag.BoolVar(&o.limits, "limits", true, "measure the bare limits too")
	flag.DurationVar(&o.quiet, "quiet", 0, "before each run, wait up to so `long` for the machine to have nothing else to do")
	flag.StringVar(&o.json, "json", "", "`file` to write everything to that was measured")
	flag.StringVar(&o.profiles, "profiles", "", "`directory` to write CPU and heap profiles of the indexer to")
	flag.StringVar(&o.program, "program", "", "`path` of the layers program; built from the tree by default")
	flag.BoolVar(&o.verbose, "v", false, "say what is being done")
	flag.Parse()
	program.Exit(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) (err error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return err
	}
	var remove func()
	if o.program, remove, err = program.Given(ctx, o.program); err != nil {
		return err
	}
	defer remove()
	b := &bench{options: o, servers: servers, watch: findStores(servers)}
	if b.warmUp, err = b.record(ctx, "warm"); err != nil {
		return err
	}
	report := report{At: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(), Runs: o.runs}
	for _, name := range strings.Split(o.only, ",") {
		var measured stream
		measured, err = b.measureStream(ctx, name)
		report.Streams = append(report.Streams, measured)
		if err != nil {
			err = fmt.Errorf("stream %q: %w", name, err) // what was measured before is shown all the same
			break
		}
	}
	report.Limits = b.limits
	report.print(os.Stdout)
	if o.json != "" {
		err = errors.Join(err, report.save(o.json))
	}
	return err
}

// bench is one run of this program.
type bench struct {
	options
	servers scratch.Servers
	watch   storeProcesses
	warmUp  recording
	limits  *limits // measured once, after the first run that has filled all stores
}

func (b *bench) say(format string, args ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
	}
}

// measureStream runs each mode as often as was asked for.
func (b *bench) measureStream(ctx context.Context, name string) (stream, error) {
	s := stream{Name: name}
	recorded, err := b.record(ctx, name)
	if err != nil {
		return s, err
	}
	s.Facts = recorded.facts
	modes := slices.Repeat([]string{first}, b.first)
	for range b.runs {
		modes = append(modes, strings.Split(b.modes, ",")...)
	}
	for i, mode := range modes {
		b.say("%s, %s, run %d of %d", name, mode, i+1, len(modes))
		result, err := b.measure(ctx, recorded, mode)
		if err != nil {
			return s, fmt.Errorf("%s: %w", mode, err)
		}
		s.Results = append(s.Results, result)
	}
	return s, nil
}

// measure makes one run in a fresh part of the stores.
func (b *bench) measure(ctx context.Context, recorded recording, mode string) (result, error) {
	fresh, err := scratch.Open(ctx, b.servers)
	if err != nil {
		return result{}, err
	}
	m := &measurement{bench: b, Stores: fresh, recording: recorded, result: result{Mode: mode}}
	switch mode {
	case first, alone, apart, together:
		err = m.run(ctx)
	default:
		err = fmt.Errorf("-modes: no mode is called %q", mode)
	}
	if err == nil && m.projects() && b.options.limits && b.limits == nil {
		b.say("bare limits")
		b.limits, err = measureLimits(ctx, fresh, b.program)
	}
	return m.result, errors.Join(err, fresh.Drop())
}
