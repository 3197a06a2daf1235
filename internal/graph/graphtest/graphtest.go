// Package graphtest opens the test Neo4j, isolated for one test.
package graphtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"testing"
	"time"

	"github.com/layers-pub/layers-appview/internal/graph"
)

// The environment variables that name the test server. User and password may be
// empty.
const (
	URLVariable      = "LAYERS_TEST_NEO4J_URL"
	UserVariable     = "LAYERS_TEST_NEO4J_USER"
	PasswordVariable = "LAYERS_TEST_NEO4J_PASSWORD" //nolint:gosec // a name, not a password
)

// Config is a configuration of the test server with a space that no other test
// uses and that is wiped when the test ends. A test without a server fails.
func Config(t testing.TB) graph.Config {
	t.Helper()
	url := os.Getenv(URLVariable)
	if url == "" {
		t.Fatalf("%s is not set: run tests by way of `make test`", URLVariable)
	}
	cfg := graph.Config{URL: url, User: os.Getenv(UserVariable), Password: os.Getenv(PasswordVariable), Space: random()}
	t.Cleanup(func() {
		client, err := graph.Open(cfg)
		if err != nil {
			t.Errorf("open graph to clean up: %v", err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		defer client.Close(ctx)
		if err := client.Wipe(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return cfg
}

// New opens a client with [Config] and ensures the constraints.
func New(t testing.TB) *graph.Client {
	t.Helper()
	client := Open(t, Config(t))
	if err := client.Ensure(context.Background()); err != nil {
		t.Fatalf("ensure graph: %v", err)
	}
	return client
}

// Open opens a client that is closed when the test ends.
func Open(t testing.TB, cfg graph.Config) *graph.Client {
	t.Helper()
	client, err := graph.Open(cfg)
	if err != nil {
		t.Fatalf("open graph: %v", err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	return client
}

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "test-" + hex.EncodeToString(b[:])
}
