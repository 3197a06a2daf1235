package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"
)

// probe is a command with every setting, which only reads them.
func probe(got *config) *cli.Command {
	return &cli.Command{
		Name:   "probe",
		Writer: io.Discard, ErrWriter: io.Discard,
		Flags: slices.Concat(serveFlags(), metricsFlags(), followFlags(), networkFlags(), storeFlags(), replicaFlags(), runFlags()),
		Action: func(_ context.Context, command *cli.Command) (err error) {
			*got, _, err = begin(command, "database-url")
			return err
		},
	}
}

func read(t *testing.T, env map[string]string, args ...string) (config, error) {
	t.Helper()
	unreadableSecrets = nil
	t.Setenv("DATABASE_URL", "postgres://localhost/layers")
	for name, value := range env {
		t.Setenv(name, value)
	}
	var got config
	err := probe(&got).Run(t.Context(), append([]string{"probe"}, args...))
	return got, err
}

func TestDefaultsAndFlagsOverVariables(t *testing.T) {
	cfg, err := read(t, map[string]string{"LAYERS_LISTEN": ":1", "LAYERS_RELAY_URL": "wss://one.example, wss://two.example"}, "--listen", ":2")
	require.NoError(t, err)
	require.Equal(t, ":2", cfg.Listen)
	require.Equal(t, []string{"wss://one.example", "wss://two.example"}, cfg.Relays)
	require.Equal(t, "https://plc.directory", cfg.PLCURL)
	require.Equal(t, ":9090", cfg.MetricsListen)
	require.False(t, cfg.AllowPrivate)
}

func TestEveryWrongSettingIsNamedAtOnce(t *testing.T) {
	wrong := map[string]string{
		"LAYERS_LISTEN": "3000", "LAYERS_METRICS_LISTEN": "nowhere", "LAYERS_PUBLIC_URL": "layers.example",
		"LAYERS_TRUSTED_PROXIES": "10.0.0.1", "LAYERS_CORS_ORIGINS": "https://tool.example/page", "LAYERS_CONCURRENCY": "search=none", "LAYERS_RATE_LIMITS": "on", "LAYERS_ADMIN_DIDS": "admin.example", "LAYERS_PREMIUM_DIDS": "did:x", "LAYERS_RELAY_URL": "bsky.network", "LAYERS_PLC_URL": "ftp://plc",
		"LAYERS_LEXICONS": filepath.Join(t.TempDir(), "absent"), "LAYERS_FOREIGN_COLLECTIONS": "posts",
		"DATABASE_REPLICA_URL": "mysql://host/db", "REDIS_URL": "localhost:6379", "ELASTICSEARCH_URL": "es:9200",
		"NEO4J_URL": "http://neo4j", "LAYERS_CA_FILE": filepath.Join(t.TempDir(), "absent.pem"), "LOG_LEVEL": "loud", "LOG_FORMAT": "xml",
	}
	_, err := read(t, wrong)
	require.Error(t, err)
	for name := range wrong {
		require.Contains(t, err.Error(), "("+name+")", "the message does not name the variable")
	}
}

func TestRequiredSettingSaysWhatItIs(t *testing.T) {
	_, err := read(t, map[string]string{"DATABASE_URL": ""})
	require.ErrorContains(t, err, "--database-url (DATABASE_URL): is required: PostgreSQL")
}

func TestSecretsComeFromFilesAndNeverIntoErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "redis-url")
	require.NoError(t, os.WriteFile(file, []byte("redis://:hunter2@localhost:6379/0\n"), 0o600))
	cfg, err := read(t, map[string]string{"REDIS_URL_FILE": file})
	require.NoError(t, err)
	require.Equal(t, "redis://:hunter2@localhost:6379/0", cfg.RedisURL)

	_, err = read(t, map[string]string{"REDIS_URL_FILE": file + ".absent"})
	require.ErrorContains(t, err, "REDIS_URL_FILE")

	_, err = read(t, map[string]string{"REDIS_URL": "https://:hunter2@localhost"})
	require.ErrorContains(t, err, "REDIS_URL")
	require.NotContains(t, err.Error(), "hunter2")
}

// TestReadmeHasEverySetting holds the README's table against the flags, both ways.
func TestReadmeHasEverySetting(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	require.NoError(t, err)
	known := map[string]bool{}
	for _, command := range newApp(io.Discard, io.Discard).Commands {
		for _, f := range command.Flags {
			for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
				known[name] = true
				require.Contains(t, string(readme), "`"+name+"`", "setting of layers %s", command.Name)
			}
		}
	}
	_, table, found := strings.Cut(string(readme), "| variable | default | |")
	require.True(t, found)
	for _, row := range strings.Split(table, "\n") {
		cells := strings.Split(row, "|")
		if len(cells) < 3 {
			continue
		}
		for _, word := range strings.FieldsFunc(cells[1], func(r rune) bool { return r == ' ' || r == ',' || r == '*' }) {
			if name, quoted := strings.CutPrefix(word, "`"); quoted {
				require.True(t, known[strings.TrimSuffix(name, "`")], "%s is in the README, but no command has it", word)
			}
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, newApp(&out, io.Discard).Run(t.Context(), []string{"layers", "--help"}))
	for _, name := range []string{"dev", "api", "indexer", "worker", "migrate", "verify", "reindex", "dlq", "simulate"} {
		require.Contains(t, out.String(), name)
	}
}

func TestAFileOfAuthoritiesIsForPostgreSQLToo(t *testing.T) {
	for address, want := range map[string]string{
		"postgres://u:p%2F@host/db":                             "postgres://u:p%2F@host/db?sslmode=verify-full&sslrootcert=%2Fca.pem",
		"postgres://host/db?sslmode=require":                    "postgres://host/db?sslmode=require&sslrootcert=%2Fca.pem",
		"postgres://host/db?sslmode=disable&pool_max_conns=3":   "postgres://host/db?pool_max_conns=3&sslmode=disable&sslrootcert=%2Fca.pem",
		"postgres://host/db?sslrootcert=%2Fother&sslmode=allow": "postgres://host/db?sslmode=allow&sslrootcert=%2Fother",
		"": "",
	} {
		require.Equal(t, want, believing(address, "/ca.pem"))
		require.Equal(t, address, believing(address, ""))
	}
}
