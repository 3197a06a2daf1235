// Package usage reads from /proc what the processes of a benchmark use. Where there is
// no /proc, the figures are zero.
package usage

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layers-pub/layers-appview/bench/scratch"
)

// ticks is how many a second /proc counts CPU time in.
const ticks = 100

// Meter adds up the CPU time of some processes and their children while it runs. It
// looks often, since what a child used is not always in its parent's account after it.
type Meter struct {
	roots map[int]string
	first map[int]float64 // by process
	last  map[int]float64
	of    map[int]string
	quit  chan struct{}
	ended sync.WaitGroup
}

const lookEvery = 500 * time.Millisecond

// Measure begins with this program, the stores on this machine, and further processes.
// On a machine that does much else, its figures say more than the time that passes.
func Measure(on scratch.Servers, further map[int]string) *Meter {
	m := &Meter{
		roots: map[int]string{os.Getpid(): "the program"}, first: map[int]float64{}, last: map[int]float64{}, of: map[int]string{},
		quit: make(chan struct{}),
	}
	maps.Copy(m.roots, further)
	for name, address := range map[string]string{
		"PostgreSQL": on.PostgreSQL, "Redis": on.Redis, "Elasticsearch": on.Elasticsearch, "Neo4j": on.Neo4j,
	} {
		if pid := Listener(address); pid != 0 {
			m.roots[pid] = name
		}
	}
	m.look(true)
	m.ended.Go(func() {
		for {
			select {
			case <-m.quit:
				return
			case <-time.After(lookEvery):
				m.look(false)
			}
		}
	})
	return m
}

// look reads the clocks. A process that was not there at the start began at zero.
func (m *Meter) look(start bool) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		used, parent := cpu(pid)
		name, ok := m.roots[pid]
		if !ok && parent != os.Getpid() {
			name, ok = m.roots[parent]
		}
		if !ok {
			continue
		}
		if start {
			m.first[pid] = used
		}
		m.last[pid], m.of[pid] = used, name
	}
}

// Stop returns the seconds used, by name.
func (m *Meter) Stop() map[string]float64 {
	close(m.quit)
	m.ended.Wait()
	m.look(false)
	used := map[string]float64{}
	for pid, seconds := range m.last {
		used[m.of[pid]] += seconds - m.first[pid]
	}
	return used
}

// cpu is what a process itself has used, in seconds, and its parent.
func cpu(pid int) (used float64, parent int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(f) < 15 {
		return 0, 0
	}
	n := func(i int) float64 { v, _ := strconv.ParseFloat(f[i], 64); return v }
	return (n(11) + n(12)) / ticks, int(n(1))
}

// Listener is the process on this machine that listens on the port of a URL, or 0.
func Listener(address string) int {
	u, err := url.Parse(address)
	if err != nil {
		return 0
	}
	number, err := strconv.Atoi(u.Port())
	if err != nil {
		return 0
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, _ := os.ReadFile(table)
		for line := range strings.Lines(string(raw)) {
			const listening = "0A"
			if f := strings.Fields(line); len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				if pid := owner("socket:[" + f[9] + "]"); pid != 0 {
					return pid
				}
			}
		}
	}
	return 0
}

// owner is the process that has a file open: of a server that forks, the parent.
func owner(file string) int {
	opened, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	owners := map[int]int{} // to their parents
	for _, fd := range opened {
		if target, err := os.Readlink(fd); err == nil && target == file {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			_, owners[pid] = cpu(pid)
		}
	}
	for pid, parent := range owners {
		if _, forked := owners[parent]; !forked {
			return pid
		}
	}
	return 0
}
