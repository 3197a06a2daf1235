package daemon

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Watcher is a process that waits for this program's death and then acts.
type Watcher struct {
	cmd  *exec.Cmd
	pipe io.Closer // held open, and closed by the system when we die
}

// AtDeath has the command run when this program ends, however it ends, without
// having dismissed the watcher. It runs detached, and its output is lost.
func AtDeath(command ...string) (*Watcher, error) {
	const waitThenRun = `read -r _; exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", waitThenRun, "layers-watch"}, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a watcher: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a watcher: %w", err), pipe.Close())
	}
	return &Watcher{cmd: cmd, pipe: pipe}, nil
}

// end stops process or group $1: with signal $2, and for certain after $3 tenths
// of a second. Then it removes the directory $4, if one is given.
const end = `
kill -s "$2" -- "$1"
while [ "$3" -gt 0 ] && kill -s 0 -- "$1"; do
	sleep 0.1
	set -- "$1" "$2" $(($3 - 1)) "$4"
done
kill -s KILL -- "$1"
[ -z "$4" ] || rm -rf -- "$4"
`

// Watch has process pid, or process group -pid if negative, stopped at our death:
// by the signal, and killed after the grace. The directory scratch is removed
// then, unless that is empty.
func Watch(pid int, signal syscall.Signal, grace time.Duration, scratch string) (*Watcher, error) {
	tenths := strconv.FormatInt(int64(grace/(100*time.Millisecond)), 10)
	return AtDeath("/bin/sh", "-c", end, "layers-end", strconv.Itoa(pid), signalName(signal), tenths, scratch)
}

// Dismiss ends the watcher before it had reason to act.
func (w *Watcher) Dismiss() {
	if w == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = w.pipe.Close()
}

// signalName is how kill(1) calls the signals that ask a server to stop.
func signalName(s syscall.Signal) string {
	if s == syscall.SIGINT {
		return "INT"
	}
	return "TERM"
}
