package embedpg_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/embedpg"
)

// programDir makes the test binary a program that starts a server on that
// directory, prints its URL, and then waits to be killed.
const programDir = "EMBEDPG_TEST_PROGRAM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(programDir); dir != "" {
		server, err := embedpg.Start(context.Background(), embedpg.Config{DataDir: dir})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(server.URL())
		select {}
	}
	os.Exit(m.Run())
}

func TestDataIsKeptBetweenRuns(t *testing.T) {
	t.Parallel()
	cfg := embedpg.Config{DataDir: openDir(t), Parameters: map[string]string{"max_connections": "17"}}

	first := start(t, cfg)
	execute(t, first.URL(), `CREATE TABLE kept AS SELECT 42 AS answer`)
	require.NoError(t, first.Stop())
	<-first.Done()
	require.NoError(t, first.Stop(), "a second stop changes nothing")

	second := start(t, cfg)
	require.Equal(t, "42", query(t, second.URL(), `SELECT answer::text FROM kept`))
	require.Equal(t, "17", query(t, second.URL(), `SHOW max_connections`))
}

func TestServerIsDurableAndSpeaksUnicode(t *testing.T) {
	t.Parallel()
	server := start(t, embedpg.Config{})
	require.Equal(t, "on on", query(t, server.URL(), `SELECT current_setting('fsync') || ' ' || current_setting('synchronous_commit')`))
	require.Equal(t, "ÌRÒYÌN", query(t, server.URL(), `SELECT upper('ìròyìn')`))
	require.True(t, strings.HasPrefix(query(t, server.URL(), `SHOW server_version`), strings.TrimSuffix(embedpg.Version, ".0")))
}

func TestServerEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server, err := embedpg.Start(ctx, embedpg.Config{})
	require.NoError(t, err)
	data := query(t, server.URL(), `SHOW data_directory`)
	require.DirExists(t, data)

	cancel()
	<-server.Done()
	require.NoError(t, server.Stop())
	require.NoDirExists(t, filepath.Dir(data), "throwaway data is thrown away")
}

func TestKilledProgramLeavesNoServerAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), programDir+"="+dir)
	program.Stderr = os.Stderr
	out, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	execute(t, strings.TrimSpace(url), `CREATE TABLE kept AS SELECT 42 AS answer`)
	require.NoError(t, program.Process.Kill())
	require.Error(t, program.Wait())

	// The lock on the directory is the killed program's server's until that is gone.
	server := start(t, embedpg.Config{DataDir: dir})
	require.Equal(t, "42", query(t, server.URL(), `SELECT answer::text FROM kept`))
	_, err = pgx.Connect(t.Context(), strings.TrimSpace(url))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestKilledServerStartsAgain(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := start(t, embedpg.Config{DataDir: dir})
	execute(t, first.URL(), `CREATE TABLE kept AS SELECT 42 AS answer`)
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	left, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	pid, rest, _ := strings.Cut(string(left), "\n")
	postmaster, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(postmaster, syscall.SIGKILL))
	<-first.Done()
	require.NoError(t, first.Stop())

	// What it left names a process that lives, though it is not the server: us.
	require.NoError(t, os.WriteFile(pidFile, []byte(fmt.Sprintf("%d\n%s", os.Getpid(), rest)), 0o600))
	second := start(t, embedpg.Config{DataDir: dir})
	require.Equal(t, "42", query(t, second.URL(), `SELECT answer::text FROM kept`))
}

func TestDirectoryServesOneAtATime(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	server := start(t, embedpg.Config{DataDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // it would wait longer
	defer cancel()
	_, err := embedpg.Start(ctx, embedpg.Config{DataDir: dir})
	require.ErrorContains(t, err, "in use by another server")
	require.Equal(t, "1", query(t, server.URL(), `SELECT 1::text`), "the first is undisturbed")
}

func TestUnusableSettingTellsWhy(t *testing.T) {
	t.Parallel()
	_, err := embedpg.Start(t.Context(), embedpg.Config{Parameters: map[string]string{"max_connections": "many"}})
	require.ErrorContains(t, err, `invalid value for parameter "max_connections": "many"`)
}

func start(t *testing.T, cfg embedpg.Config) *embedpg.Server {
	t.Helper()
	server, err := embedpg.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return server
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func query(t *testing.T, url, sql string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&answer))
	return answer
}

// openDir is a directory for a test that an unprivileged account may enter too.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "embedpg-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711))
	return dir
}
