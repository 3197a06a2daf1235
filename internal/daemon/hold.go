package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// StartWatched starts a command that does nothing until it is watched: whatever the
// moment at which this program dies, nobody is left behind. watch is given the ID of
// the process, whose program is only run when watch has returned.
func StartWatched(cmd *exec.Cmd, watch func(pid int) (*Watcher, error)) (*Watcher, error) {
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	hold, release, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to hold a process: %w", err)
	}
	defer hold.Close()
	defer release.Close()
	waitThenRun := fmt.Sprintf(`read -r _ <&%[1]d || exit; exec %[1]d<&-; exec "$@"`, 3+len(cmd.ExtraFiles))
	cmd.ExtraFiles = append(cmd.ExtraFiles, hold)
	cmd.Args = append([]string{"/bin/sh", "-c", waitThenRun, "layers-hold", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = cmd.Args[0]
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	watcher, err := watch(cmd.Process.Pid)
	if err == nil {
		_, err = release.WriteString("\n")
	}
	if err != nil {
		watcher.Dismiss()
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return watcher, nil
}
