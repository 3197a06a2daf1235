package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// stopWithin is longer than the program's own drain, after which it must be gone.
const stopWithin = time.Minute

// Process is a running command of the program.
type Process struct {
	t     *testing.T
	Name  string
	cmd   *exec.Cmd
	log   string // file with both outputs
	Ended chan struct{}
	err   error // of the process; set before ended is closed
	meant bool  // to end as it did: its log is of no interest
}

// Launch starts the program. It is killed at the end of the test, or with it, and
// the end of its log is shown if the test has failed.
func Launch(t *testing.T, env []string, name string, args ...string) *Process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+"-*.log")
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	require.NoError(t, cmd.Start())
	p := &Process{t: t, Name: name, cmd: cmd, log: log.Name(), Ended: make(chan struct{})}
	watcher, err := daemon.Watch(cmd.Process.Pid, syscall.SIGTERM, 0, "")
	go func() {
		p.err = cmd.Wait()
		watcher.Dismiss()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.Ended
		if t.Failed() && !p.meant {
			t.Logf("end of the log of %s (pid %d, %v):\n%s", name, cmd.Process.Pid, p.err, p.Tail(6000))
		}
	})
	require.NoError(t, err)
	return p
}

// Briefly runs the program until it ends by itself, however it does, or until it has
// served for a moment after the first that it wrote; it returns all that it has written.
func Briefly(t *testing.T, env []string, args ...string) string {
	t.Helper()
	p := Launch(t, env, args[0], args...)
	p.meant = true
	Eventually(t, p.Name+" to say something", func() (bool, string) { return !p.Alive() || p.Output() != "", "it is silent" })
	select {
	case <-p.Ended:
	case <-time.After(brief):
		// It may have ended by itself just now.
		if err := p.cmd.Process.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			require.NoError(t, err)
		}
		p.Wait(stopWithin)
	}
	return p.Output()
}

// brief is long enough for a program that finds its settings wrong to say so, once it
// runs: when that is depends on what else the machine does.
const brief = 2 * time.Second

// Alive tells whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.Ended:
		return false
	default:
		return true
	}
}

// Failure says how a process ended that should not have.
func (p *Process) Failure() string {
	return fmt.Sprintf("%v; end of its log:\n%s", p.err, p.Tail(3000))
}

// Kill ends the process as a lost machine would: it has no chance to do anything.
// It fails the test if the process was not alive to be killed.
func (p *Process) Kill() {
	p.t.Helper()
	require.NoError(p.t, p.Strike(), "%s was to be killed, but has ended before", p.Name)
	p.Killed()
}

// Strike sends the signal of Kill and returns; it may be called from any goroutine.
func (p *Process) Strike() error { return p.cmd.Process.Signal(syscall.SIGKILL) }

// Killed waits until the process has ended, and requires that it was killed.
func (p *Process) Killed() {
	p.t.Helper()
	p.Wait(Patience)
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, ok)
	require.True(p.t, status.Signaled() && status.Signal() == syscall.SIGKILL,
		"%s was to be killed, but ended by itself: %s", p.Name, p.Failure())
	p.meant = true
}

// Memory is how much of the machine's memory the process has had at most, in bytes.
func (p *Process) Memory() int64 {
	p.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	for line := range strings.Lines(string(content)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			return kilobytes << 10
		}
	}
	p.t.Fatal("/proc has no VmHWM")
	return 0
}

// Arguments are what everybody on the machine can see of how the process was started.
func (p *Process) Arguments() string {
	p.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	return strings.ReplaceAll(string(content), "\x00", " ")
}

// Stop asks the process to end and requires that it does so cleanly.
func (p *Process) Stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM), "%s was to be stopped, but has ended before", p.Name)
	p.Wait(stopWithin)
	require.NoError(p.t, p.err, "%s did not stop cleanly:\n%s", p.Name, p.Tail(3000))
	p.meant = true
}

// Wait waits for the process to end.
func (p *Process) Wait(within time.Duration) {
	p.t.Helper()
	select {
	case <-p.Ended:
	case <-time.After(within):
		p.t.Fatalf("%s has not ended after %s; end of its log:\n%s", p.Name, within, p.Tail(6000))
	}
}

// Output is all that the process has written so far.
func (p *Process) Output() string {
	content, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	return string(content)
}

// Tail is the end of the output, so many bytes at most.
func (p *Process) Tail(most int) string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(content) > most {
		content = content[len(content)-most:]
		_, content, _ = bytes.Cut(content, []byte("\n"))
	}
	return string(content)
}
