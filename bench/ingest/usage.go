package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/scratch"
	measured "github.com/layers-pub/layers-appview/bench/usage"
)

// What processes use is read from /proc; where there is none, as on macOS, the
// figures are zero.

// ticks is how many a second /proc counts CPU time in, on every Linux there is.
const ticks = 100

// storeProcesses are the process that listens for each store, by the store's name.
type storeProcesses map[string]int

// findStores finds the stores that run natively on this machine.
func findStores(on scratch.Servers) storeProcesses {
	found := storeProcesses{}
	for name, address := range map[string]string{"postgresql": on.PostgreSQL, "redis": on.Redis, "elasticsearch": on.Elasticsearch, "neo4j": on.Neo4j} {
		if pid := measured.Listener(address); pid != 0 {
			found[name] = pid
		}
	}
	return found
}

// usage is CPU time in seconds, counted from some point in the past.
type usage struct {
	at      time.Time
	indexer float64
	stores  map[string]float64
	rest    float64 // of this program and of the one that serves the stream
	machine float64 // of all processes
}

// usageOf takes the present figures. The indexer may be 0, for none.
func (w storeProcesses) usageOf(indexer, host int) usage {
	u := usage{at: time.Now(), stores: map[string]float64{}, machine: machineCPU()}
	children := childCPU()
	for name, pid := range w {
		own, ended := processCPU(pid)
		u.stores[name] = own + ended + children[pid]
	}
	u.indexer, _ = processCPU(indexer)
	own, _ := processCPU(os.Getpid())
	served, _ := processCPU(host)
	u.rest = own + served
	return u
}

// spent is CPU time between two moments, in seconds.
type spent struct {
	Seconds float64            `json:"seconds"`
	Indexer float64            `json:"indexer"`
	Stores  map[string]float64 `json:"stores"`
	Rest    float64            `json:"benchmark"` // serving the stream, and watching
	Others  float64            `json:"others"`    // whatever else the machine did
}

func (u usage) since(before usage) spent {
	s := spent{Seconds: u.at.Sub(before.at).Seconds(), Indexer: u.indexer - before.indexer, Rest: u.rest - before.rest, Stores: map[string]float64{}}
	ours := s.Indexer + s.Rest
	for name, seconds := range u.stores {
		s.Stores[name] = seconds - before.stores[name]
		ours += s.Stores[name]
	}
	s.Others = max(0, u.machine-before.machine-ours)
	return s
}

// processCPU is the time of a process, and of its children that have ended.
func processCPU(pid int) (own, ended float64) {
	f := statFields(pid)
	if len(f) < 15 {
		return 0, 0
	}
	return (number(f[11]) + number(f[12])) / ticks, (number(f[13]) + number(f[14])) / ticks
}

// childCPU is the time of all living processes by their parent.
func childCPU() map[int]float64 {
	sums := map[int]float64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if f := statFields(pid); len(f) >= 15 {
			parent, _ := strconv.Atoi(f[1])
			sums[parent] += (number(f[11]) + number(f[12])) / ticks
		}
	}
	return sums
}

// statFields are those of /proc/PID/stat after the name: the state, the parent, ...
func statFields(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
}

func number(s string) float64 {
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

func machineCPU() float64 {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0
	}
	user, nice, system, irq, softirq, steal := f[1], f[2], f[3], f[6], f[7], f[8]
	return (number(user) + number(nice) + number(system) + number(irq) + number(softirq) + number(steal)) / ticks
}

const (
	quietSpan  = 3 * time.Second
	quietCores = 0.3 // what the stores' own housekeeping may take
)

// awaitQuiet waits until the machine has been idle for a moment, at most so long.
func awaitQuiet(ctx context.Context, most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); {
		before := machineCPU()
		if sleep(ctx, quietSpan) != nil || machineCPU()-before < quietCores*quietSpan.Seconds() {
			return
		}
	}
}

// machine is where a report was made.
type machine struct {
	CPUs   int     `json:"cpus"`
	CPU    string  `json:"cpu"`
	Memory float64 `json:"memoryGiB"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
}

func describeMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: runtime.GOARCH, Kernel: runtime.GOOS}
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		if f := strings.Fields(string(raw)); len(f) > 1 {
			m.Memory = number(f[1]) / (1 << 20)
		}
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(raw))
	}
	return m
}
