package embedpg_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/embedpg"
)

func TestKeepsDataBetweenRuns(t *testing.T) {
	ctx := t.Context()
	cfg := embedpg.Config{DataDir: openDir(t), Parameters: map[string]string{"max_connections": "17"}}

	first, err := embedpg.Start(ctx, cfg)
	require.NoError(t, err)
	exec(t, first.URL(), `CREATE TABLE kept AS SELECT 42 AS answer`)
	require.NoError(t, first.Stop())
	<-first.Done()
	require.NoError(t, first.Stop(), "a second stop changes nothing")

	second, err := embedpg.Start(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, "42", query(t, second.URL(), `SELECT answer::text FROM kept`))
	require.Equal(t, "17", query(t, second.URL(), `SHOW max_connections`))
	require.NoError(t, second.Stop())
}

func exec(t *testing.T, url, sql string) {
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
