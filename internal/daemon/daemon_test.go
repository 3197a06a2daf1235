package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// helperDir makes the test binary a program that starts a server in that
// directory, says so, and then waits to be killed.
const helperDir = "DAEMON_TEST_HELPER_DIR"

// hasty makes it a program that is killed when it has started a command and not yet a
// watcher.
const hasty = "DAEMON_TEST_HASTY"

func TestMain(m *testing.M) {
	if os.Getenv(hasty) != "" {
		cmd := exec.Command("/bin/sh", "-c", "echo ran; exec sleep 1000")
		cmd.Stdout = os.Stdout
		_, err := daemon.StartWatched(cmd, func(int) (*daemon.Watcher, error) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		})
		fmt.Println("not killed:", err)
	}
	if dir := os.Getenv(helperDir); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		select {}
	}
	os.Exit(m.Run())
}

func helper(dir string) error {
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	p, err := daemon.Start(server(dir, stubborn, daemon.Spec{Files: []*os.File{os.NewFile(3, "alive")}, Scratch: scratch}))
	if err != nil {
		return err
	}
	if err := p.Ready(context.Background(), time.Minute, hasWritten(dir, "up")); err != nil {
		return err
	}
	fmt.Println("up")
	return nil
}

const (
	// polite ends when it is asked to.
	polite = `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done`
	// stubborn has a child, and neither heeds the request to end.
	stubborn = `trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.05; done`
)

// server is a shell script as a server whose log lies in dir.
func server(dir, script string, spec daemon.Spec) daemon.Spec {
	spec.Path, spec.Args = "/bin/sh", []string{"-c", script}
	spec.Log = filepath.Join(dir, "log")
	spec.Grace = 300 * time.Millisecond
	return spec
}

func hasWritten(dir, word string) func(context.Context) error {
	return func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(dir, "log"))
		if err == nil && !strings.Contains(string(text), word) {
			err = errors.New("not yet")
		}
		return err
	}
}

// alive returns both ends of a pipe: reading from r ends when every process that
// was given w is dead.
func alive(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r, w
}

func TestServerAndItsChildrenDieWithAKilledProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, w := alive(t)
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), helperDir+"="+dir)
	program.ExtraFiles = []*os.File{w}
	out, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	require.NoError(t, w.Close())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "up\n", line)

	require.NoError(t, program.Process.Kill())
	_, err = io.ReadAll(r) // ends with the last of them
	require.NoError(t, err)
	require.Error(t, program.Wait())
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "scratch"))
		return errors.Is(err, os.ErrNotExist)
	}, time.Minute, 10*time.Millisecond, "the scratch directory goes too")
}

// The output of a program ends when the last process that has it is gone.
func TestNothingRunsUnwatched(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hasty+"=1")
	out, err := cmd.Output()
	require.ErrorContains(t, err, "killed")
	require.Empty(t, string(out))
}

func TestStopAsksFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spec := server(dir, polite, daemon.Spec{})
	spec.Grace = time.Minute
	p, err := daemon.Start(spec)
	require.NoError(t, err)
	require.NoError(t, p.Ready(t.Context(), time.Minute, hasWritten(dir, "up")))
	require.NoError(t, p.Stop())
	<-p.Done()
	require.Contains(t, p.Tail(), "bye")
	require.NoError(t, p.Stop(), "a second time")
}

func TestEndWaitsAndDoesNotKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := daemon.Start(server(dir, stubborn, daemon.Spec{}))
	require.NoError(t, err)
	require.NoError(t, p.Ready(t.Context(), time.Minute, hasWritten(dir, "up")))
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.End(brief, syscall.SIGTERM), context.DeadlineExceeded)
	require.NoError(t, syscall.Kill(p.PID(), 0), "it has not heeded, and runs")
	require.NoError(t, p.End(t.Context(), syscall.SIGKILL))
	require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH)
	require.NoError(t, p.Stop(), "of what has ended")
}

func TestStopKillsWhatDoesNotHeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, w := alive(t)
	p, err := daemon.Start(server(dir, stubborn, daemon.Spec{Files: []*os.File{w}}))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, p.Ready(t.Context(), time.Minute, hasWritten(dir, "up")))
	require.NoError(t, p.Stop())
	_, err = io.ReadAll(r)
	require.NoError(t, err)
}

func TestReadyTellsWhyTheServerEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := daemon.Start(server(dir, "echo no such setting; exit 3", daemon.Spec{}))
	require.NoError(t, err)
	err = p.Ready(t.Context(), time.Minute, hasWritten(dir, "up"))
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "no such setting")
	require.NoError(t, p.Stop())
}

func TestReadyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := daemon.Start(server(dir, polite, daemon.Spec{}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Ready(ctx, time.Minute, hasWritten(dir, "never")), context.Canceled)
	require.NoError(t, p.Stop())
}

func TestRun(t *testing.T) {
	t.Parallel()
	var us *daemon.Account
	out, err := us.Run(t.Context(), exec.Command("sh", "-c", "echo out; echo err >&2"))
	require.NoError(t, err)
	require.Equal(t, "out\n", string(out))

	_, err = us.Run(t.Context(), exec.Command("sh", "-c", "echo what went wrong >&2; exit 4"))
	require.ErrorContains(t, err, "exit status 4")
	require.ErrorContains(t, err, "what went wrong")
}

func TestRunKillsAllAtTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	r, w := alive(t)
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000")
	cmd.ExtraFiles = []*os.File{w}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := (*daemon.Account)(nil).Run(ctx, cmd)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, w.Close())
	_, err = io.ReadAll(r)
	require.NoError(t, err)
}

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	account, err := daemon.Unprivileged()
	require.NoError(t, err)
	out, err := account.Run(t.Context(), exec.Command("id", "-u"))
	require.NoError(t, err)
	uid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	require.NotZero(t, uid, "a server never runs as the superuser")
	if me := syscall.Geteuid(); me != 0 {
		require.Nil(t, account)
		require.Equal(t, me, uid)
	}

	dir, err := account.TempDir("daemon-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, account.CanEnter(dir))
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o700))
	require.NoError(t, account.OwnTree(home))
	_, err = account.Run(t.Context(), exec.Command("touch", filepath.Join(home, "file")))
	require.NoError(t, err)
}
