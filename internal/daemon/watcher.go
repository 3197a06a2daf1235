package daemon

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// watch waits for the end of its standard input, which comes when the program at
// the other end dies, and then stops the process or group $1: with signal $2, and
// for certain after $3 tenths of a second. It removes directory $4, if that is given.
const watch = `
read -r _
kill -s "$2" -- "$1"
while [ "$3" -gt 0 ] && kill -s 0 -- "$1"; do
	sleep 0.1
	set -- "$1" "$2" $(($3 - 1)) "$4"
done
kill -s KILL -- "$1"
[ -z "$4" ] || rm -rf -- "$4"
`

// Watcher is a process that stops another one when this program dies.
type Watcher struct {
	cmd  *exec.Cmd
	pipe io.Closer // held open, and closed by the system when we die
}

// Watch starts a watcher of process pid, or of process group -pid if negative. The
// watcher removes the directory scratch afterwards, unless that is empty.
func Watch(pid int, signal syscall.Signal, grace time.Duration, scratch string) (*Watcher, error) {
	tenths := strconv.FormatInt(int64(grace/(100*time.Millisecond)), 10)
	cmd := exec.Command("/bin/sh", "-c", watch, "layers-watch", strconv.Itoa(pid), signalName(signal), tenths, scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("watch over a child process: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watch over a child process: %w", err)
	}
	return &Watcher{cmd: cmd, pipe: pipe}, nil
}

// Dismiss ends the watcher. The process it watched over is left alone.
func (w *Watcher) Dismiss() {
	if w == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = w.pipe.Close()
}

// signalName is how kill(1) calls the signal.
func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "INT"
	case syscall.SIGKILL:
		return "KILL"
	default:
		return "TERM"
	}
}
