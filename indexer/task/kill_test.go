package task

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
)

// childVariable makes this program a process of workers, configured by its value.
const childVariable = "LAYERS_TASK_TEST_WORKERS"

func TestMain(m *testing.M) {
	if config := os.Getenv(childVariable); config != "" {
		if err := runChild(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type childConfig struct {
	RedisURL, DatabaseURL string
	Search                search.Config
	Graph                 graph.Config
}

func runChild(config string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx := context.Background()
	cat, err := catalog.Load()
	if err != nil {
		return err
	}
	pool, err := store.Open(ctx, store.Config{URL: c.DatabaseURL})
	if err != nil {
		return err
	}
	documents, err := search.Open(c.Search)
	if err != nil {
		return err
	}
	if _, err := documents.Ensure(ctx, mappings(cat)); err != nil {
		return err
	}
	nodes, err := graph.Open(c.Graph)
	if err != nil {
		return err
	}
	workers, err := NewWorkers(Config{RedisURL: c.RedisURL, Logger: slog.Default()}, Stores{
		Catalog: cat, Records: store.NewReader(pool), Outbox: store.NewOutbox(pool), DeadLetters: store.NewDeadLetters(pool),
		Tables: store.NewTables(pool), Search: documents, Graph: nodes,
	})
	if err != nil {
		return err
	}
	return workers.Run(ctx)
}

// TestWorkersKilled kills processes of workers, with SIGKILL, while they have tasks
// under way. Whoever comes next carries them out.
func TestWorkersKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dispatcher, err := NewDispatcher(w.config(), w.stores.Outbox)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- dispatcher.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })

	config, err := json.Marshal(childConfig{RedisURL: w.redisURL, DatabaseURL: w.databaseURL, Search: w.searchConfig, Graph: w.graphConfig})
	require.NoError(t, err)
	active := func() []string { // also those of the killed, for a while
		ids, err := w.redis.LRange(t.Context(), "asynq:{graph:high}:active", 0, -1).Result()
		require.NoError(t, err)
		return ids
	}
	for range 3 {
		w.create(150)
		before := active()
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childVariable+"="+string(config))
		child.Stderr = t.Output()
		require.NoError(t, child.Start())
		w.until("the process has tasks under way", func() bool {
			return slices.ContainsFunc(active(), func(id string) bool { return !slices.Contains(before, id) })
		})
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		require.NotZero(t, w.depth("graph"), "the kill came in the midst of the work")
		w.disturb()
	}
	w.run(w.config())
	w.settled(targets...)
	w.equal()
}
