package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What processes use is read from /proc; where there is none, the figures are zero.
// On a machine that does much else, they say more than the time that passes.

// ticks is how many a second /proc counts CPU time in.
const ticks = 100

// usage is the CPU time in seconds of this program and of the stores on this machine.
func (w *world) usage() map[string]float64 {
	children := map[int]float64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		own, _, parent := cpu(pid)
		children[parent] += own
	}
	used := map[string]float64{}
	used["the program"], _, _ = cpu(os.Getpid())
	for name, address := range map[string]string{
		"PostgreSQL": w.admin, "Elasticsearch": os.Getenv("LAYERS_TEST_ELASTICSEARCH_URL"), "Neo4j": os.Getenv("LAYERS_TEST_NEO4J_URL"),
	} {
		if u, err := url.Parse(address); err == nil {
			if pid := listener(u.Port()); pid != 0 {
				own, ended, _ := cpu(pid)
				used[name] = own + ended + children[pid]
			}
		}
	}
	return used
}

// cpu is the time of a process and of its children that have ended, and its parent.
func cpu(pid int) (own, ended float64, parent int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(f) < 15 {
		return 0, 0, 0
	}
	n := func(i int) float64 { v, _ := strconv.ParseFloat(f[i], 64); return v }
	return (n(11) + n(12)) / ticks, (n(13) + n(14)) / ticks, int(n(1))
}

// listener is the process that listens on a TCP port, or 0.
func listener(port string) int {
	number, _ := strconv.Atoi(port)
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
			_, _, owners[pid] = cpu(pid)
		}
	}
	for pid, parent := range owners {
		if _, forked := owners[parent]; !forked {
			return pid
		}
	}
	return 0
}
