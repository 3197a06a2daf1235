// Package daemon runs another program's server as a child process that never
// outlives this program, also when this program is killed, and that need not be
// the superuser's.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run, and how it is asked to stop.
type Spec struct {
	Path    string
	Args    []string
	Dir     string
	Env     []string   // as in [exec.Cmd]
	Files   []*os.File // handed on as file descriptors 3, 4, ...
	Account *Account
	Log     string // file that receives both outputs, emptied first; the account cannot touch it

	Signal  syscall.Signal // asks the server to stop; SIGTERM if zero
	Grace   time.Duration  // until it is killed instead; 10 s if zero
	Scratch string         // directory that goes when the server ends because this program died
}

// Process is a server that was started.
type Process struct {
	spec    Spec
	cmd     *exec.Cmd
	watcher *Watcher
	ended   chan struct{}
	err     error // of the process; set before ended is closed
	stop    sync.Once
}

// Start runs the server and a watcher that stops it should this program die.
func Start(spec Spec) (*Process, error) {
	if spec.Signal == 0 {
		spec.Signal = syscall.SIGTERM
	}
	if spec.Grace == 0 {
		spec.Grace = 10 * time.Second
	}
	cmd, err := command(spec)
	if err != nil {
		return nil, err
	}
	p := &Process{spec: spec, cmd: cmd, ended: make(chan struct{})}
	p.watcher, err = StartWatched(cmd, func(pid int) (*Watcher, error) {
		return Watch(-pid, spec.Signal, spec.Grace, spec.Scratch)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", spec.Path, err), cmd.Stdout.(*os.File).Close())
	}
	go p.wait()
	return p, nil
}

// command is the process to be; it has its log open, which the child takes over.
func command(spec Spec) (*exec.Cmd, error) {
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = spec.Dir, spec.Env, spec.Files
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = spec.Account.attributes()
	return cmd, nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	p.watcher.Dismiss()
	_ = p.cmd.Stdout.(*os.File).Close()
	close(p.ended)
}

// Done is closed when the server has ended, asked or not.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Stop asks the server to stop, waits for its end, and kills it if that takes
// longer than its grace. A server that has ended already is no error, nor is one
// that ends with a status of its own after being asked.
func (p *Process) Stop() error {
	p.stop.Do(func() {
		p.signal(p.spec.Signal)
		select {
		case <-p.ended:
		case <-time.After(p.spec.Grace):
		}
		p.signal(syscall.SIGKILL)
	})
	<-p.ended
	if status := (*exec.ExitError)(nil); p.err != nil && !errors.As(p.err, &status) {
		return fmt.Errorf("stop %s: %w", p.spec.Path, p.err)
	}
	return nil
}

// PID is the process ID of the server, which is its own and no other's while it runs.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// End sends the server and what it started a signal, and waits until the server has
// ended, however long that takes it: unlike [Process.Stop] it does not kill.
func (p *Process) End(ctx context.Context, s syscall.Signal) error {
	p.signal(s)
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end %s by %v: %w; the end of its log:\n%s", p.spec.Path, s, ctx.Err(), p.Tail())
	}
}

// signal reaches the server and what it started itself. The group is ours alone
// as long as a member lives, so a late signal hits nobody else.
func (p *Process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// Ready waits until probe succeeds, at most for timeout. It fails as soon as the
// server ends. The error carries the end of the server's log.
func (p *Process) Ready(ctx context.Context, timeout time.Duration, probe func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := probe(limited)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready (%s); the end of its log:\n%s", p.spec.Path, p.cmd.ProcessState, p.Tail())
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("wait for %s: %w", p.spec.Path, ctx.Err())
			}
			return fmt.Errorf("%s was not ready after %s: %w; the end of its log:\n%s", p.spec.Path, timeout, err, p.Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
