package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/usage"
	"github.com/layers-pub/layers-appview/bench/world"
	"github.com/layers-pub/layers-appview/internal/cache"
)

// version of k6 that is built.
const version = "v1.8.1"

//go:embed load.js
var script []byte

type bench struct {
	options
	k6    string
	world *world.World
	api   server             // works every answer out
	kept  server             // gives those again that it has kept
	alone map[string]answers // by kind
}

// server is a running `layers api`.
type server struct {
	*program.Process
	base string
}

// answers are what k6 says of a measurement; times in milliseconds.
type answers struct {
	Rate, Median, P95, P99, Max, Bytes float64
	Refused, Wrong                     float64
}

// install builds k6 where it is not in the cache yet.
func install(ctx context.Context) (string, error) {
	dir, err := cache.Install("k6-"+version, func(dir string) error {
		cmd := exec.CommandContext(ctx, "go", "install", "go.k6.io/k6@"+version)
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build k6: %w\n%s", err, output)
		}
		return nil
	})
	return filepath.Join(dir, "k6"), err
}

// serve runs `layers api` on the world's stores, as it is by default but for limits
// on how often one address may ask, with or without kept answers.
func (b *bench) serve(ctx context.Context, keeping bool) (s server, err error) {
	ports, err := program.FreePorts(1)
	if err != nil {
		return s, err
	}
	address := "127.0.0.1:" + ports[0]
	s.base = "http://" + address
	s.Process, err = program.Launch(b.program, append(b.world.Environment(), "LAYERS_LISTEN="+address, "LAYERS_METRICS_LISTEN=127.0.0.1:0",
		"LAYERS_RATE_LIMITS=off", "LOG_LEVEL=warn", fmt.Sprintf("LAYERS_CACHE=%t", keeping)), "api")
	if err != nil {
		return s, err
	}
	return s, program.UntilReady(ctx, s.Process, s.base)
}

func (b *bench) header() {
	fmt.Printf("%-14s %8s %9s %9s %9s %9s %8s %7s   %s\n", "", "a second", "median", "p95", "p99", "max", "refused", "wrong", "CPU for an answer")
}

// measure lets the readers of a kind ask, beside ingest or of what keeps answers if its
// name says so.
func (b *bench) measure(ctx context.Context, name string) (err error) {
	kind, beside, _ := strings.Cut(name, "+")
	dir, err := os.MkdirTemp("", "layers-k6-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	questions, err := b.ask(kind, dir)
	if err != nil {
		return err
	}
	api := b.api
	if beside == "kept" {
		api = b.kept
	}
	processes, warmUp := map[int]string{api.PID(): "API"}, min(b.duration, 10*time.Second)
	var in *ingest
	if beside == "ingest" {
		if in, err = b.ingest(ctx, b.alone[kind].Rate/4); err != nil { // a fifth of all that is done
			return err
		}
		defer func() { err = errors.Join(err, in.stop()) }()
		processes[in.indexer.PID()], processes[in.network.PID()] = "indexer", "network"
		warmUp = b.warmUp
	}
	if _, err := b.load(ctx, api, dir, questions, kind, warmUp); err != nil { // caches and compilers
		return err
	}
	if err := in.begin(ctx); err != nil {
		return err
	}
	meter := usage.Measure(b.world.Servers, processes)
	got, err := b.load(ctx, api, dir, questions, kind, b.duration)
	used := meter.Stop()
	if err != nil {
		return err
	}
	if beside == "" {
		b.alone[kind] = got
	}
	b.print(name, got, used, in.rate(ctx))
	return nil
}

// load runs k6 once.
func (b *bench) load(ctx context.Context, api server, dir, questions, kind string, duration time.Duration) (got answers, err error) {
	file := filepath.Join(dir, "load.js")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return got, err
	}
	readers := map[string]int{"search": b.searches, "graph": b.graphs}[kind]
	cmd := exec.CommandContext(ctx, b.k6, "run", "--quiet", "--no-usage-report", "-e", "QUESTIONS="+questions, "-e", "BASE="+api.base,
		"-e", fmt.Sprintf("READERS=%d", readers), "-e", "DURATION="+duration.String(), file)
	cmd.Env = append(os.Environ(), "K6_NO_USAGE_REPORT=true")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return got, fmt.Errorf("k6: %w\n%s", err, stderr.Bytes())
	}
	if err := json.Unmarshal(output, &got); err != nil {
		return got, fmt.Errorf("read what k6 says: %w\n%s", err, output)
	}
	return got, api.Alive()
}

func (b *bench) print(name string, got answers, used map[string]float64, ingested float64) {
	var shares []string
	for _, process := range slices.Sorted(maps.Keys(used)) {
		if each := used[process] * 1e3 / (got.Rate * b.duration.Seconds()); each >= 0.005 {
			shares = append(shares, fmt.Sprintf("%s %.2f ms", strings.Replace(process, "the program", "k6", 1), each))
		}
	}
	fmt.Printf("%-14s %8.0f %6.1f ms %6.1f ms %6.1f ms %6.0f ms %8.0f %7.0f   %s\n", name, got.Rate, got.Median, got.P95, got.P99, got.Max, got.Refused, got.Wrong, strings.Join(shares, ", "))
	if alone, ok := b.alone[strings.TrimSuffix(name, "+ingest")]; ok && ingested > 0 {
		fmt.Printf("%-14s p95 is %.2f of that alone, beside %.0f records a second taken in\n", "", got.P95/alone.P95, ingested)
	}
}
