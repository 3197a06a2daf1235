package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
)

// The modes of a measurement.
const (
	first    = "first"    // alone, on servers that have just been started
	alone    = "alone"    // the line without workers
	apart    = "apart"    // the same, and then workers without the line
	together = "together" // as `layers indexer` runs by default
)

// result is what one measurement found. Seconds count from the moment at which the
// indexer has connected to the stream, or from the workers' start in Catchup.
type result struct {
	Mode string `json:"mode"`
	// ToPostgres is when the cursor, which commits with the records, stands at the
	// stream's end.
	ToPostgres float64 `json:"toPostgresSeconds"`
	// Projected is when the outbox has nothing left for a projection: tables, search, graph.
	Projected map[string]float64 `json:"projectedSeconds"`
	Line      spent              `json:"line"`    // until ToPostgres
	Catchup   spent              `json:"catchup"` // from then until all is projected
	PeakMiB   float64            `json:"peakMiB"` // of the indexer
	// WorkerMiB is the most that the process with the workers had, where that is another.
	WorkerMiB float64 `json:"workerPeakMiB,omitempty"`
}

// measurement is one run in a fresh part of the stores.
type measurement struct {
	*bench
	*scratch.Stores
	recording recording
	result    result
}

// projects tells whether the run goes on until the projections have everything.
func (m *measurement) projects() bool { return m.result.Mode == apart || m.result.Mode == together }

const measureTime = 10 * time.Minute // for one measurement; no stream takes so long

func (m *measurement) run(ctx context.Context) error {
	awaitQuiet(ctx, m.quiet)
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	if err := m.warm(ctx); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	// What earlier measurements left in PostgreSQL's memory is written now, not meanwhile.
	if _, err := m.Database.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	host, err := m.serve(ctx, m.recording)
	if err != nil {
		return err
	}
	err = m.index(ctx, host)
	if err == nil {
		err = m.check(ctx, m.recording.facts.Present+m.warmUp.facts.Present)
	}
	return errors.Join(err, host.Stop())
}

// warm lets an indexer make the schemas and index a small stream, so that plans,
// caches and the Java stores' compilers are warm, and stops it.
func (m *measurement) warm(ctx context.Context) error {
	host, err := m.serve(ctx, m.warmUp)
	if err != nil {
		return err
	}
	ix, err := m.start(host, "indexer")
	if err != nil {
		return errors.Join(err, host.Stop())
	}
	_, err = ix.Await(ctx, "search indexes are filled")
	if err == nil {
		err = m.untilApplied(ctx, ix, host, m.warmUp.facts.LastSeq)
	}
	if err == nil {
		_, err = m.untilProjected(ctx, ix, time.Now())
	}
	return errors.Join(err, ix.Stop(), host.Stop())
}

// served is a process that serves a stream.
type served struct {
	*program.Process
	relay, plc string
}

// serve starts `layers simulate --replay` on a free port.
func (m *measurement) serve(ctx context.Context, r recording) (*served, error) {
	p, err := program.Launch(m.program, os.Environ(), "simulate", "--replay", r.dir, "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	line, err := p.Await(ctx, "LAYERS_RELAY_URL=")
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	s := &served{Process: p}
	for _, word := range strings.Fields(line.Text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "LAYERS_RELAY_URL":
			s.relay = value
		case "LAYERS_PLC_URL":
			s.plc = value
		}
	}
	return s, nil
}

// running is an indexer or worker, with its operator's address.
type running struct {
	*program.Process
	metrics, health string
}

func (m *measurement) start(host *served, role string, args ...string) (*running, error) {
	ports, err := program.FreePorts(2)
	if err != nil {
		return nil, err
	}
	r := &running{metrics: "127.0.0.1:" + ports[0], health: "127.0.0.1:" + ports[1]}
	args = append([]string{role, "--metrics-listen", r.metrics, "--listen", r.health, "--plc-url", host.plc, "--allow-private-hosts", "--log-format", "json"}, args...)
	if role == "indexer" {
		args = append(args, "--relay-url", host.relay)
	}
	r.Process, err = program.LaunchNice(m.nice, m.program, m.Environment(), args...)
	return r, err
}

// index runs the indexer over the stream, to its end in every store.
func (m *measurement) index(ctx context.Context, host *served) (err error) {
	var args []string
	if m.result.Mode != together {
		args = append(args, "--no-workers")
	}
	ix, err := m.start(host, "indexer", args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ix.Stop()) }()
	connected, err := ix.Await(ctx, "firehose connected")
	if err != nil {
		return err
	}
	before := m.watch.usageOf(ix.PID(), host.PID())
	profiled := m.profile(ctx, ix, "line")
	if err := m.untilApplied(ctx, ix, host, m.recording.facts.LastSeq); err != nil {
		return err
	}
	m.result.ToPostgres = time.Since(connected.At).Seconds()
	applied := m.watch.usageOf(ix.PID(), host.PID())
	m.result.Line = applied.since(before)
	m.result.PeakMiB = program.PeakMemory(ix.PID())
	if err := <-profiled; err != nil {
		return err
	}
	if !m.projects() {
		return nil
	}
	workers, began := ix, connected.At
	if m.result.Mode == apart {
		if workers, err = m.start(host, "worker"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, workers.Stop()) }()
		if err := workers.untilHealthy(ctx); err != nil {
			return err
		}
		began = time.Now()
		applied = m.watch.usageOf(workers.PID(), host.PID())
		profiled = m.profile(ctx, workers, "workers")
	}
	if m.result.Projected, err = m.untilProjected(ctx, workers, began); err != nil {
		return err
	}
	m.result.Catchup = m.watch.usageOf(workers.PID(), host.PID()).since(applied)
	m.result.PeakMiB = program.PeakMemory(ix.PID())
	if workers != ix {
		m.result.WorkerMiB = program.PeakMemory(workers.PID())
		return <-profiled
	}
	return nil
}

const (
	cursorPoll = 20 * time.Millisecond
	outboxPoll = 100 * time.Millisecond
)

// untilApplied waits for the cursor to reach the end of a stream.
func (m *measurement) untilApplied(ctx context.Context, ix *running, host *served, last int64) error {
	for {
		seq, err := m.cursor(ctx, host.relay)
		if err == nil {
			err = ix.Alive()
		}
		if err != nil || seq >= last {
			return err
		}
		if err := sleep(ctx, cursorPoll); err != nil {
			return fmt.Errorf("waiting for event %d, the cursor is at %d: %w", last, seq, err)
		}
	}
}

// untilProjected waits until the outbox is empty, and tells for each projection how
// long after began it was.
func (m *measurement) untilProjected(ctx context.Context, workers *running, began time.Time) (map[string]float64, error) {
	done := map[string]float64{}
	for {
		waiting, err := m.Waiting(ctx)
		if err == nil {
			err = workers.Alive()
		}
		if err != nil {
			return nil, err
		}
		for _, target := range targets {
			if waiting[target] {
				delete(done, target) // new rows, as of records whose target has arrived
			} else if _, ok := done[target]; !ok {
				done[target] = time.Since(began).Seconds()
			}
		}
		if len(waiting) == 0 {
			return done, nil
		}
		if err := sleep(ctx, outboxPoll); err != nil {
			return nil, fmt.Errorf("waiting for the projections %v: %w", waiting, err)
		}
	}
}

var targets = []string{"tables", "search", "graph"}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// untilHealthy waits until the process answers: from then on its workers run.
func (r *running) untilHealthy(ctx context.Context) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.health+"/health", nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			answer.Body.Close()
			return nil
		}
		if err := errors.Join(r.Alive(), sleep(ctx, cursorPoll)); err != nil {
			return err
		}
	}
}

const profileSeconds = 8

// profile takes a CPU profile while the process is at work, and then one of its
// heap, where profiles are wanted.
func (m *measurement) profile(ctx context.Context, of *running, what string) <-chan error {
	done := make(chan error, 1)
	if m.profiles == "" {
		done <- nil
		return done
	}
	base := filepath.Join(m.profiles, fmt.Sprintf("%s-%s-%s", filepath.Base(m.recording.dir), m.result.Mode, what))
	go func() {
		err := of.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), base+"-cpu.pprof")
		done <- errors.Join(err, of.fetch(ctx, "/debug/pprof/allocs", base+"-allocs.pprof"))
	}()
	return done
}

func (r *running) fetch(ctx context.Context, path, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.metrics+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	defer answer.Body.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, answer.Body)
	return errors.Join(err, out.Close())
}
