package rig

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

// Servers are a Redis, an Elasticsearch and a Neo4j that are one test's alone, which
// may therefore stop them. They keep their data and addresses while they are away.
// PostgreSQL is the one that all tests share.
type Servers struct {
	variables map[string]string
	Redis     *Server
	Elastic   *Server
	Neo4j     *Server
}

const postgresVariable = "LAYERS_TEST_DATABASE_URL"

// StartServers starts servers that end with the test, however it ends.
func StartServers(t *testing.T) *Servers {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "servers.log"))
	require.NoError(t, err)
	cmd := exec.Command("go", "run", "github.com/layers-pub/layers-appview/test/stores", "-small", "-only", "redis,elasticsearch,neo4j",
		"--", "sh", "-c", "env | grep ^LAYERS_TEST_; echo; exec cat") // which ends with its input, and that with us
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "LAYERS_TEST_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Stderr = log
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	watcher, err := daemon.StartWatched(cmd, func(pid int) (*daemon.Watcher, error) {
		return daemon.Watch(pid, syscall.SIGTERM, stopWithin, "")
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = input.Close()
		err := cmd.Wait()
		watcher.Dismiss()
		_ = log.Close()
		if err != nil || t.Failed() {
			t.Errorf("the servers (%v) said:\n%s", err, daemon.Tail(log.Name()))
		}
	})
	s := &Servers{variables: readVariables(t, output)}
	s.variables[postgresVariable] = os.Getenv(postgresVariable)
	s.Redis = s.server(t, "redis", "LAYERS_TEST_REDIS_URL")
	s.Elastic = s.server(t, "elasticsearch", "LAYERS_TEST_ELASTICSEARCH_URL")
	s.Neo4j = s.server(t, "neo4j", "LAYERS_TEST_NEO4J_URL")
	return s
}

// readVariables reads lines NAME=value up to an empty one.
func readVariables(t *testing.T, from io.Reader) map[string]string {
	t.Helper()
	variables := map[string]string{}
	for lines := bufio.NewScanner(from); lines.Scan() && lines.Text() != ""; {
		name, value, _ := strings.Cut(lines.Text(), "=")
		variables[name] = value
	}
	require.NotEmpty(t, variables, "the servers did not start")
	return variables
}

func (s *Servers) server(t *testing.T, name, variable string) *Server {
	t.Helper()
	at, err := url.Parse(s.variables[variable])
	require.NoError(t, err)
	return &Server{t: t, Name: name, Address: at.Host, control: s.variables["LAYERS_TEST_STORES_CONTROL"] + "/" + name}
}

// Open makes a test's part of PostgreSQL, and of these servers.
func (s *Servers) Open(t *testing.T) *Stores {
	t.Helper()
	return open(t, func(variable string) string { return s.variables[variable] }, true)
}

// Server is one of a test's own.
type Server struct {
	Name    string
	Address string // host:port
	t       *testing.T
	control string // URL
	last    string // its process, the last time that it was asked for
}

// Process is the ID of its process; empty while it is stopped.
func (s *Server) Process() string {
	s.t.Helper()
	return s.ask(http.MethodGet, "")
}

// Stop asks the process to end, waits until it has, and requires that it is gone.
func (s *Server) Stop() { s.t.Helper(); s.end("/stop") }

// Kill ends the process without giving it time for anything, and requires that it is gone.
func (s *Server) Kill() { s.t.Helper(); s.end("/kill") }

func (s *Server) end(how string) {
	s.t.Helper()
	s.last = s.Process()
	require.NotEmpty(s.t, s.last, "%s does not run", s.Name)
	s.ask(http.MethodPost, how)
	s.Gone()
}

// Gone requires that there is no process, and that its port refuses connections.
func (s *Server) Gone() {
	s.t.Helper()
	require.Empty(s.t, s.Process(), "%s runs", s.Name)
	_, err := net.DialTimeout("tcp", s.Address, time.Minute)
	require.ErrorIs(s.t, err, syscall.ECONNREFUSED, s.Name)
}

// Start starts a process in place of the one that was ended. It returns before the
// server answers.
func (s *Server) Start() {
	s.t.Helper()
	s.ask(http.MethodPost, "/start")
	now := s.Process()
	require.NotEmpty(s.t, now, "%s has not started", s.Name)
	require.NotEqual(s.t, s.last, now, "%s is the process that it was", s.Name)
}

func (s *Server) ask(method, path string) string {
	s.t.Helper()
	request, err := http.NewRequest(method, s.control+path, nil)
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, response.StatusCode, fmt.Sprintf("%s %s%s: %s", method, s.Name, path, body))
	return string(body)
}
