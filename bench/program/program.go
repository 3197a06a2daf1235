// Package program builds the layers program and runs it for a benchmark, which
// reads its log and watches it from outside.
package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// Exit runs a benchmark, ends it early but in order on SIGINT and SIGTERM, and exits
// with 1 if it fails.
func Exit(run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

// Process is a running command of the program.
type Process struct {
	cmd   *exec.Cmd
	name  string
	ended chan struct{}
	err   error // set before ended is closed

	mu    sync.Mutex
	lines []LogLine
	more  chan struct{} // closed and replaced with every line
}

// LogLine is a line of its log, and when it was read.
type LogLine struct {
	At   time.Time
	Text string
}

// Launch starts the program. It ends with this one, however that ends.
func Launch(program string, env []string, args ...string) (*Process, error) {
	return LaunchNice(0, program, env, args...)
}

// LaunchNice starts the program so that it gives way to others by as much as the
// command nice makes of a number from 0 to 19.
func LaunchNice(nice int, program string, env []string, args ...string) (*Process, error) {
	cmd := exec.Command("nice", append([]string{"-n", strconv.Itoa(nice), program}, args...)...)
	cmd.Env = env
	output, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start layers %s: %w", args[0], err)
	}
	watcher, err := daemon.StartWatched(cmd, func(pid int) (*daemon.Watcher, error) {
		return daemon.Watch(pid, syscall.SIGTERM, 0, "")
	})
	if err != nil {
		return nil, fmt.Errorf("start layers %s: %w", args[0], err)
	}
	p := &Process{cmd: cmd, name: args[0], ended: make(chan struct{}), more: make(chan struct{})}
	go func() {
		p.read(output)
		p.err = cmd.Wait()
		watcher.Dismiss()
		close(p.ended)
	}()
	return p, nil
}

// PID is its process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

func (p *Process) read(output io.Reader) {
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, LogLine{time.Now(), scanner.Text()})
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, output) // a line that is too long
}

// Await returns the first line of the log that has all the words.
func (p *Process) Await(ctx context.Context, words ...string) (LogLine, error) {
	for seen := 0; ; {
		p.mu.Lock()
		lines, more := p.lines, p.more
		p.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if hasAll(lines[seen].Text, words) {
				return lines[seen], nil
			}
		}
		select {
		case <-more:
		case <-p.ended:
			return LogLine{}, p.failure()
		case <-ctx.Done():
			return LogLine{}, fmt.Errorf("waiting for layers %s to say %q: %w", p.name, words, ctx.Err())
		}
	}
}

func hasAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// Alive is an error once the process has ended.
func (p *Process) Alive() error {
	select {
	case <-p.ended:
		return p.failure()
	default:
		return nil
	}
}

func (p *Process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.lines[max(0, len(p.lines)-8):]
	texts := make([]string, len(last))
	for i, line := range last {
		texts[i] = line.Text
	}
	return fmt.Errorf("layers %s ended (%w); it said last:\n%s", p.name, errors.Join(errors.New("too early"), p.err), strings.Join(texts, "\n"))
}

// Given is the path of the program to run: the one that is given, or else one that is
// built from this tree, in a directory that remove takes away.
func Given(ctx context.Context, path string) (program string, remove func(), err error) {
	if path != "" {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "layers-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the program: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	program = filepath.Join(dir, "layers")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/layers-pub/layers-appview/cmd/layers")
	if output, err := build.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("build layers: %w\n%s", err, output)
	}
	return program, remove, nil
}

// FreePorts are TCP ports of the loopback interface that nobody listens on.
func FreePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		port, err := daemon.FreePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, strconv.Itoa(port))
	}
	return ports, nil
}

// UntilReady waits until an API process says at /ready that it is.
func UntilReady(ctx context.Context, p *Process, base string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if err := p.Alive(); err != nil {
			return err
		}
		if res, err := http.Get(base + "/ready"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API does not become ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PeakMemory is the most that a process has had resident so far, in MiB; 0 where
// there is no /proc to tell.
func PeakMemory(pid int) float64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if rest, ok := strings.CutPrefix(scanner.Text(), "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

const stopTime = time.Minute

// Stop asks the process to end and waits for it.
func (p *Process) Stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("layers %s did not stop within %s", p.name, stopTime)
	}
	if p.err != nil {
		return p.failure()
	}
	return nil
}
