package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/embedpg"
)

// asProgram makes the test binary the program itself.
const asProgram = "STORES_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is the program with these arguments, no store given, no Docker engine,
// and a directory of its own for temporary files.
type program struct {
	*exec.Cmd
	temp   string
	stderr bytes.Buffer
}

func newProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0], args...), temp: openDir(t)}
	p.Stderr = &p.stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LAYERS_TEST_") {
			p.Env = append(p.Env, v)
		}
	}
	p.Env = append(p.Env, asProgram+"=1", "TMPDIR="+p.temp)
	p.hide(t, "docker", "exit 1")
	return p
}

// openDir is a directory for a test that an unprivileged account may enter too.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stores-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// hide puts a script before the program of that name on the PATH.
func (p *program) hide(t *testing.T, name, script string) {
	t.Helper()
	dir := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	var path string // the last one counts
	for _, v := range p.Env {
		if current, ok := strings.CutPrefix(v, "PATH="); ok {
			path = current
		}
	}
	p.Env = append(p.Env, "PATH="+dir+string(filepath.ListSeparator)+path)
}

// exit is the exit code after the program's end.
func (p *program) exit(t *testing.T, err error) int {
	t.Helper()
	if status := (*exec.ExitError)(nil); err != nil && !errors.As(err, &status) {
		require.NoError(t, err)
	}
	return p.ProcessState.ExitCode()
}

func TestExitCodeIsTheCommands(t *testing.T) {
	t.Parallel()
	for script, code := range map[string]int{
		`exit 0`:          0,
		`exit 7`:          7,
		`kill -s KILL $$`: 128 + 9,
	} {
		p := newProgram(t, "--only", "redis", "--", "sh", "-c", script)
		require.Equal(t, code, p.exit(t, p.Run()), "%s\n%s", script, &p.stderr)
	}
}

func TestGivenStoreIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--only", "redis", "--", "sh", "-c", "echo $LAYERS_TEST_REDIS_URL")
	p.Env = append(p.Env, "LAYERS_TEST_REDIS_URL=redis://given:1")
	out, err := p.Output()
	require.NoError(t, err, &p.stderr)
	require.Equal(t, "redis://given:1\n", string(out))
	require.NotContains(t, p.stderr.String(), "redis: ready")
}

func TestWrongArgumentsRunNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--only", "mysql", "--", "echo", "ran"}, `no store is called "mysql"`},
		{[]string{"--only", "redis"}, "name the command to run"},
		{[]string{"--all", "echo", "ran"}, "flag provided but not defined"},
	} {
		p := newProgram(t, c.args...)
		var out bytes.Buffer
		p.Stdout = &out
		require.NotZero(t, p.exit(t, p.Run()))
		require.Contains(t, p.stderr.String(), c.says)
		require.Empty(t, out.String())
	}
}

// TestNothingIsLeft stops the program in each way while the command runs. The
// standard output ends only when the command has ended too.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for signal, code := range map[syscall.Signal]int{
		syscall.SIGINT:  128 + 2,
		syscall.SIGTERM: 128 + 15,
		syscall.SIGKILL: -1, // of the program itself
	} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			p := newProgram(t, "--only", "redis,postgres", "--", "sh", "-c",
				"echo $LAYERS_TEST_REDIS_URL; echo $LAYERS_TEST_DATABASE_URL; exec sleep 1000")
			out, err := p.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, p.Start())
			lines := bufio.NewReader(out)
			redis, database := readURL(t, lines), readURL(t, lines)
			require.True(t, listens(t, redis), "%s", redis)
			require.True(t, listens(t, database), "%s", database)

			require.NoError(t, p.Process.Signal(signal))
			_, err = io.Copy(io.Discard, lines)
			require.NoError(t, err)
			require.Equal(t, code, p.exit(t, p.Wait()), &p.stderr)
			require.Eventually(t, func() bool { return isEmpty(p.temp) }, time.Minute, 10*time.Millisecond,
				"data directories are removed")
			require.False(t, listens(t, redis))
			require.False(t, listens(t, database))
		})
	}
}

func TestSignalWhileStarting(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--only", "redis,postgres", "--", "echo", "ran")
	began := filepath.Join(t.TempDir(), "began")
	p.hide(t, "docker", "touch "+began+"; exit 1") // it asks for an engine first of all
	p.hide(t, "redis-server", "exec sleep 1000")   // never answers
	var out bytes.Buffer
	p.Stdout = &out
	require.NoError(t, p.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(began); return err == nil }, time.Minute, 10*time.Millisecond)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 1, p.exit(t, p.Wait()))
	require.Contains(t, p.stderr.String(), "stopped by signal")
	require.Empty(t, out.String())
	require.True(t, isEmpty(p.temp))
}

func TestStoreThatFailsShowsItsLog(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--only", "redis,postgres", "--", "echo", "ran")
	p.hide(t, "redis-server", "echo cannot bind; exit 1")
	var out bytes.Buffer
	p.Stdout = &out
	require.Equal(t, 1, p.exit(t, p.Run()))
	require.Contains(t, p.stderr.String(), "cannot bind")
	require.Empty(t, out.String())
	require.True(t, isEmpty(p.temp), "what had started is stopped")
}

// TestContainers has a script play the Docker engine.
func TestContainers(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--only", "redis,neo4j", "--", "sh", "-c", "echo $LAYERS_TEST_REDIS_URL $LAYERS_TEST_NEO4J_URL; exit 5")
	calls := filepath.Join(t.TempDir(), "calls")
	p.hide(t, "docker", `echo "$* redis=$LAYERS_REDIS_PORT neo4j=$LAYERS_NEO4J_PORT" >>`+calls)
	out, err := p.Output()
	require.Equal(t, 5, p.exit(t, err), &p.stderr)

	fields := strings.Fields(string(out))
	require.Len(t, fields, 2)
	redis, err := url.Parse(fields[0])
	require.NoError(t, err)
	neo4j, err := url.Parse(fields[1])
	require.NoError(t, err)
	require.Equal(t, "bolt", neo4j.Scheme)

	text, err := os.ReadFile(calls)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 4, "info, version, up, down: %s", text)
	require.Contains(t, lines[2], "up --detach --wait redis neo4j redis="+redis.Port()+" neo4j="+neo4j.Port())
	project := func(line string) string { return strings.Fields(line[strings.Index(line, "--project-name"):])[1] }
	require.Contains(t, lines[3], "down --volumes")
	require.Equal(t, project(lines[2]), project(lines[3]), "what is stopped is what was started")
}

func TestContainersAreOfTheSameReleases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docker", "docker-compose.yml"))
	require.NoError(t, err)
	major, _, _ := strings.Cut(embedpg.Version, ".")
	require.Contains(t, string(text), "image: postgres:"+major+"\n")
	require.Contains(t, string(text), "image: elasticsearch:"+elasticsearchVersion+"\n")
	require.Contains(t, string(text), "image: neo4j:"+neo4jVersion+"-community\n")
}

func readURL(t *testing.T, lines *bufio.Reader) *url.URL {
	t.Helper()
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	u, err := url.Parse(strings.TrimSpace(line))
	require.NoError(t, err)
	return u
}

// listens says whether a server accepts connections there.
func listens(t *testing.T, u *url.URL) bool {
	t.Helper()
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		return false
	}
	require.NoError(t, conn.Close())
	return true
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}
