// Package searchtest opens the test Elasticsearch, isolated for one test.
package searchtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"testing"
	"time"

	"github.com/layers-pub/layers-appview/internal/search"
)

// URLVariable names the environment variable with the test server's URL.
const URLVariable = "LAYERS_TEST_ELASTICSEARCH_URL"

// URL is the test server's. A test without one fails.
func URL(t testing.TB) string {
	t.Helper()
	url := os.Getenv(URLVariable)
	if url == "" {
		t.Fatalf("%s is not set: run tests by way of `make test`", URLVariable)
	}
	return url
}

// Config is a configuration with an index prefix that no other test uses, whose
// indexes are dropped when the test ends.
func Config(t testing.TB) search.Config {
	t.Helper()
	cfg := search.Config{URLs: []string{URL(t)}, Prefix: "test-" + random()}
	t.Cleanup(func() {
		client, err := search.Open(cfg)
		if err != nil {
			t.Errorf("open search to clean up: %v", err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		if err := client.Drop(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return cfg
}

// New opens a client with [Config].
func New(t testing.TB) *search.Client {
	t.Helper()
	return Open(t, Config(t))
}

// Open opens a client that is closed when the test ends.
func Open(t testing.TB, cfg search.Config) *search.Client {
	t.Helper()
	client, err := search.Open(cfg)
	if err != nil {
		t.Fatalf("open search: %v", err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	return client
}

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
