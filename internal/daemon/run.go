package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Run runs a command to its end as the account and returns its standard output.
// The end of ctx kills it and what it started, as our death does. An error carries
// the end of both outputs.
func (a *Account) Run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = a.attributes()
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	group := -cmd.Process.Pid
	detach := context.AfterFunc(ctx, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
	defer detach()
	watcher, err := Watch(group, syscall.SIGTERM, time.Second, "")
	if err != nil {
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
	defer watcher.Dismiss()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("run %s: %w\n%s", filepath.Base(cmd.Path), err, tail(append(out.Bytes(), errs.Bytes()...)))
	}
	return out.Bytes(), nil
}
