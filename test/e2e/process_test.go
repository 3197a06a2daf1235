package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// stopWithin is longer than the program's own drain, after which it must be gone.
const stopWithin = time.Minute

// process is a running command of the program.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	log   string // file with both outputs
	ended chan struct{}
	err   error // of the process; set before ended is closed
	meant bool  // to end as it did: its log is of no interest
}

// launch starts the program. It is killed at the end of the test, or with it, and
// the end of its log is shown if the test has failed.
func launch(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+"-*.log")
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	require.NoError(t, cmd.Start())
	p := &process{t: t, name: name, cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	watcher, err := daemon.Watch(cmd.Process.Pid, syscall.SIGTERM, 0, "")
	go func() {
		p.err = cmd.Wait()
		watcher.Dismiss()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
		if t.Failed() && !p.meant {
			t.Logf("end of the log of %s (pid %d, %v):\n%s", name, cmd.Process.Pid, p.err, p.tail(6000))
		}
	})
	require.NoError(t, err)
	return p
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// failure says how a process ended that should not have.
func (p *process) failure() string {
	return fmt.Sprintf("%v; end of its log:\n%s", p.err, p.tail(3000))
}

// kill ends the process as a lost machine would: it has no chance to do anything.
// It fails the test if the process was not alive to be killed.
func (p *process) kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGKILL), "%s was to be killed, but has ended before", p.name)
	<-p.ended
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, ok)
	require.True(p.t, status.Signaled() && status.Signal() == syscall.SIGKILL,
		"%s was to be killed, but ended by itself: %s", p.name, p.failure())
	p.meant = true
}

// stop asks the process to end and requires that it does so cleanly.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM), "%s was to be stopped, but has ended before", p.name)
	p.wait(stopWithin)
	require.NoError(p.t, p.err, "%s did not stop cleanly:\n%s", p.name, p.tail(3000))
	p.meant = true
}

// wait waits for the process to end.
func (p *process) wait(within time.Duration) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.t.Fatalf("%s has not ended after %s; end of its log:\n%s", p.name, within, p.tail(6000))
	}
}

// output is all that the process has written so far.
func (p *process) output() string {
	content, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	return string(content)
}

func (p *process) tail(most int) string {
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
