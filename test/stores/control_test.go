package main

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// controlled is a program whose command waits for its standard input to end.
type controlled struct {
	*program
	t       *testing.T
	lines   *bufio.Reader
	input   io.Closer
	control *url.URL
}

func startControlled(t *testing.T, variable string, p *program) (c *controlled, store *url.URL) {
	t.Helper()
	p.Args = append(p.Args, "--", "sh", "-c", "echo $"+controlVariable+"; echo $"+variable+"; exec cat")
	input, err := p.StdinPipe()
	require.NoError(t, err)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	c = &controlled{program: p, t: t, lines: bufio.NewReader(out), input: input}
	c.control = readURL(t, c.lines)
	return c, readURL(t, c.lines)
}

// ask sends a request to the control address.
func (c *controlled) ask(method, path string) (status int, body string) {
	c.t.Helper()
	request, err := http.NewRequest(method, c.control.JoinPath(path).String(), nil)
	require.NoError(c.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(c.t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	require.NoError(c.t, err)
	return response.StatusCode, string(content)
}

func (c *controlled) do(path string) {
	c.t.Helper()
	status, body := c.ask(http.MethodPost, path)
	require.Equal(c.t, http.StatusOK, status, body)
}

// process is the ID of a store's process, or nothing.
func (c *controlled) process(store string) string {
	c.t.Helper()
	status, body := c.ask(http.MethodGet, store)
	require.Equal(c.t, http.StatusOK, status, body)
	return body
}

func TestStoreIsStoppedAndStartedWithItsData(t *testing.T) {
	t.Parallel()
	c, address := startControlled(t, "LAYERS_TEST_REDIS_URL", newProgram(t, "--only", "redis"))
	options, err := redis.ParseURL(address.String())
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	answers := func() bool { return client.Ping(t.Context()).Err() == nil }
	require.NoError(t, client.ConfigSet(t.Context(), "save", "3600 1").Err()) // also when it is asked to end
	require.NoError(t, client.Set(t.Context(), "kept", "yes", 0).Err())

	seen := map[string]bool{c.process("redis"): true}
	for _, how := range []string{"redis/stop", "redis/kill"} {
		c.do(how)
		require.Empty(t, c.process("redis"))
		require.False(t, listens(t, address))
		status, body := c.ask(http.MethodPost, how)
		require.Equal(t, http.StatusInternalServerError, status)
		require.Contains(t, body, "ended already")

		c.do("redis/start")
		require.Eventually(t, answers, time.Minute, 10*time.Millisecond)
		id := c.process("redis")
		require.NotEmpty(t, id)
		require.False(t, seen[id], "another process")
		seen[id] = true
		require.Equal(t, "yes", client.Get(t.Context(), "kept").Val(), how)
		status, body = c.ask(http.MethodPost, "redis/start")
		require.Equal(t, http.StatusInternalServerError, status)
		require.Contains(t, body, "started already")
	}
	status, _ := c.ask(http.MethodPost, "neo4j/stop")
	require.Equal(t, http.StatusNotFound, status, "of those that were not started")

	require.NoError(t, c.input.Close())
	require.Zero(t, c.exit(t, c.Wait()), &c.stderr)
	require.NotContains(t, c.stderr.String(), "HAS DIED")
	require.True(t, isEmpty(c.temp))
	require.False(t, listens(t, address))
}

// TestNothingIsLeftOfAStoppedStore ends the program while a store is stopped, whose
// directory is then nobody's but the program's.
func TestNothingIsLeftOfAStoppedStore(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		c, _ := startControlled(t, "LAYERS_TEST_REDIS_URL", newProgram(t, "--only", "redis"))
		c.do("redis/stop")
		require.False(t, isEmpty(c.temp), "its data is there")
		require.NoError(t, c.Process.Signal(signal))
		_, err := io.Copy(io.Discard, c.lines)
		require.NoError(t, err)
		_ = c.Wait()
		require.Eventually(t, func() bool { return isEmpty(c.temp) }, time.Minute, 10*time.Millisecond)
	}
}

func TestStoreThatDiesIsTold(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--only", "redis")
	told, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, told.Close()) })
	p.Stderr = told
	c, address := startControlled(t, "LAYERS_TEST_REDIS_URL", p)
	options, err := redis.ParseURL(address.String())
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	_ = client.ShutdownNoSave(t.Context()).Err() // the connection ends
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(told.Name())
		require.NoError(t, err)
		return strings.Contains(string(text), "redis HAS DIED")
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, c.input.Close())
	require.NoError(t, c.Wait())
}

// TestContainersAreStopped has a script play the Docker engine.
func TestContainersAreStopped(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "--small", "--only", "redis")
	calls := filepath.Join(t.TempDir(), "calls")
	p.hide(t, "docker", `echo "$* $LAYERS_NEO4J_HEAP" >>`+calls+`
case "$*" in *" ps "*) echo 0123abc;; *"State.Pid"*) cat `+calls+`.pid;; esac`)
	require.NoError(t, os.WriteFile(calls+".pid", []byte("4711\n"), 0o644))
	c, _ := startControlled(t, "LAYERS_TEST_REDIS_URL", p)
	require.Equal(t, "4711", c.process("redis"))
	c.do("redis/stop")
	require.NoError(t, os.WriteFile(calls+".pid", []byte("0\n"), 0o644))
	require.Empty(t, c.process("redis"))
	c.do("redis/start")
	c.do("redis/kill")
	require.NoError(t, c.input.Close())
	require.Zero(t, c.exit(t, c.Wait()), &c.stderr)

	text, err := os.ReadFile(calls)
	require.NoError(t, err)
	var verbs []string
	for line := range strings.Lines(string(text)) {
		if _, verb, ok := strings.Cut(line, "--project-name layers-test-"); ok {
			verbs = append(verbs, strings.Join(strings.Fields(verb)[1:], " "))
		}
	}
	require.Equal(t, []string{
		"up --detach --wait redis 256m", "ps --all --quiet redis 256m", "stop --timeout 120 redis 256m",
		"ps --all --quiet redis 256m", "start redis 256m", "kill redis 256m", "down --volumes --timeout 5 256m",
	}, verbs)
	require.Contains(t, string(text), "inspect --format {{.State.Pid}} 0123abc")
}
