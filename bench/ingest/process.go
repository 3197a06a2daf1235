package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// process is a running command of the program.
type process struct {
	cmd   *exec.Cmd
	name  string
	ended chan struct{}
	err   error // set before ended is closed

	mu    sync.Mutex
	lines []logLine
	more  chan struct{} // closed and replaced with every line
}

type logLine struct {
	at   time.Time
	text string
}

// launch starts the program. It ends with this one, however that ends.
func launch(program string, env []string, args ...string) (*process, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = env
	output, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start layers %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start layers %s: %w", args[0], err)
	}
	p := &process{cmd: cmd, name: args[0], ended: make(chan struct{}), more: make(chan struct{})}
	watcher, err := daemon.Watch(cmd.Process.Pid, syscall.SIGTERM, 0, "")
	go func() {
		p.read(output)
		p.err = cmd.Wait()
		watcher.Dismiss()
		close(p.ended)
	}()
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) read(output io.Reader) {
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, logLine{time.Now(), scanner.Text()})
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, output) // a line that is too long
}

// await returns the first line of the log that has all the words.
func (p *process) await(ctx context.Context, words ...string) (logLine, error) {
	for seen := 0; ; {
		p.mu.Lock()
		lines, more := p.lines, p.more
		p.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if hasAll(lines[seen].text, words) {
				return lines[seen], nil
			}
		}
		select {
		case <-more:
		case <-p.ended:
			return logLine{}, p.failure()
		case <-ctx.Done():
			return logLine{}, fmt.Errorf("waiting for layers %s to say %q: %w", p.name, words, ctx.Err())
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

// alive is an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return p.failure()
	default:
		return nil
	}
}

func (p *process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.lines[max(0, len(p.lines)-8):]
	texts := make([]string, len(last))
	for i, line := range last {
		texts[i] = line.text
	}
	return fmt.Errorf("layers %s ended (%w); it said last:\n%s", p.name, errors.Join(errors.New("too early"), p.err), strings.Join(texts, "\n"))
}

const stopTime = time.Minute

// stop asks the process to end and waits for it.
func (p *process) stop() error {
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
