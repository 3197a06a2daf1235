package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// runCommand runs the command to its end and returns its exit code, 128 + n if
// signal n ended it. Signals are passed on to it.
func runCommand(args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	watcher, err := daemon.StartWatched(cmd, func(pid int) (*daemon.Watcher, error) {
		return daemon.Watch(pid, syscall.SIGTERM, 10*time.Second, "")
	})
	if err != nil {
		return 0, fmt.Errorf("run the command: %w", err)
	}
	defer watcher.Dismiss()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			return exitCode(cmd, err)
		}
	}
}

func exitCode(cmd *exec.Cmd, err error) (int, error) {
	if status := (*exec.ExitError)(nil); err != nil && !errors.As(err, &status) {
		return 0, fmt.Errorf("run the command: %w", err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// tellWhenAbandoned sends SIGTERM when `go run`, which started us, has died: it
// passes no signal on, so whoever kills it means us. It returns at once if we were
// started in another way.
func tellWhenAbandoned(signals chan<- os.Signal) {
	program, err := os.Executable()
	if err != nil || !strings.Contains(filepath.Dir(program), string(filepath.Separator)+"go-build") {
		return
	}
	parent := os.Getppid()
	for os.Getppid() == parent {
		time.Sleep(500 * time.Millisecond)
	}
	signals <- syscall.SIGTERM
}
