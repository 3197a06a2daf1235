package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/internal/daemon"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// site is one installation of the program, and the network that it follows.
type site struct {
	program string
	build   string // directory of PostgreSQL
	dir     string // with the scripts, the backups and the databases
	account *daemon.Account
	stores  *scratch.Stores
	db      *database
	world   *simulate.World
	server  *simulate.Server
	indexer *program.Process
}

// environment is what the program and the scripts are told.
func (s *site) environment(more ...string) []string {
	var env []string
	for _, variable := range s.stores.Environment() {
		if !strings.HasPrefix(variable, "LAYERS_") && !strings.HasPrefix(variable, "PATH=") {
			env = append(env, variable)
		}
	}
	env = append(env, "PATH="+filepath.Join(s.build, "bin")+":"+os.Getenv("PATH"),
		"LAYERS_RELAY_URL="+s.server.RelayURL(), "LAYERS_PLC_URL="+s.server.URL(), "LAYERS_ALLOW_PRIVATE_HOSTS=true",
		"LAYERS_RELAY_QUIET=2s", "LAYERS_RELAY_MAX_WAIT=2s", "LAYERS_RESYNC_FIRST_WAIT=100ms", "LAYERS_RESYNC_HOST_RATE=200",
		"LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LOG_FORMAT=text")
	if s.db != nil && s.db.server != nil {
		env = append(env, "DATABASE_URL="+s.db.server.URL(),
			"PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(s.db.port), "PGUSER=postgres", "PGPASSWORD="+s.db.password())
	}
	return append(env, more...)
}

// layers runs a command of the program to its end. code is its exit code.
func (s *site) layers(ctx context.Context, args ...string) (output string, code int, err error) {
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = s.environment()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	if err != nil {
		return string(out), 0, fmt.Errorf("layers %s: %w", args[0], err)
	}
	return string(out), 0, nil
}

// script runs one of the scripts.
func (s *site) script(ctx context.Context, name string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "scripts", name), args...)
	cmd.Env = s.environment(env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, output)
	}
	return nil
}

var found = regexp.MustCompile(`(?m)^(\d+) differences`)

// verify compares the stores. ahead counts those in which a projection knows more than PostgreSQL.
func (s *site) verify(ctx context.Context, args ...string) (differences, ahead int, err error) {
	output, code, err := s.layers(ctx, append([]string{"verify"}, args...)...)
	if err != nil {
		return 0, 0, err
	}
	match := found.FindStringSubmatch(output)
	if match == nil {
		return 0, 0, fmt.Errorf("layers verify ended with %d:\n%s", code, output)
	}
	differences, err = strconv.Atoi(match[1])
	return differences, strings.Count(output, "\tahead\t"), err
}

// agreed requires that the stores hold the same.
func (s *site) agreed(ctx context.Context, args ...string) error {
	differences, _, err := s.verify(ctx, args...)
	if err == nil && differences > 0 {
		err = fmt.Errorf("layers verify finds %d differences", differences)
	}
	return err
}

func (s *site) startIndexer() (err error) {
	s.indexer, err = program.Launch(s.program, s.environment(), "indexer")
	return err
}

func (s *site) stopIndexer() error {
	indexer := s.indexer
	s.indexer = nil
	return indexer.Stop()
}

// api starts the API, waits until it answers, and stops it.
func (s *site) api(ctx context.Context) error {
	ports, err := program.FreePorts(1)
	if err != nil {
		return err
	}
	process, err := program.Launch(s.program, s.environment("LAYERS_LISTEN=127.0.0.1:"+ports[0]), "api")
	if err != nil {
		return err
	}
	return errors.Join(program.UntilReady(ctx, process, "http://127.0.0.1:"+ports[0]), process.Stop())
}

const (
	patience = 20 * time.Minute
	poll     = 100 * time.Millisecond
)

// caughtUp waits until the index is what was written, and the projections have it.
func (s *site) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.wait(ctx, "the cursor to come to the end", func() error {
		cursor, err := ask[int64](ctx, s.db.server.URL(), "SELECT coalesce(max(seq), 0) FROM cursor")
		if last := s.world.LastSeq(); err == nil && cursor < last {
			return fmt.Errorf("it is at %d of %d", cursor, last)
		}
		return err
	}); err != nil {
		return err
	}
	if err := s.wait(ctx, "the projections to catch up", func() error {
		rows, err := ask[int64](ctx, s.db.server.URL(), "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sweeps) + (SELECT count(*) FROM resyncs)")
		if err == nil && rows > 0 {
			return fmt.Errorf("%d rows are pending", rows)
		}
		return err
	}); err != nil {
		return err
	}
	have, _, err := shown(ctx, s.db.server.URL())
	if err != nil {
		return err
	}
	return differ(have, written(s.world, 0))
}

// wait tries again until a condition holds. It ends with the indexer, should that end.
func (s *site) wait(ctx context.Context, what string, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if dead := s.indexer.Alive(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		case <-time.After(poll):
		}
	}
}

// emptyProjections removes everything from Elasticsearch and Neo4j.
func (s *site) emptyProjections(ctx context.Context) error {
	documents, err := search.Open(search.Config{URLs: []string{s.stores.Elasticsearch}, Prefix: s.stores.Name})
	if err != nil {
		return err
	}
	nodes, err := graph.Open(graph.Config{URL: s.stores.Neo4j, User: s.stores.Neo4jUser, Password: s.stores.Neo4jPassword, Space: s.stores.Name})
	if err != nil {
		return errors.Join(err, documents.Close(ctx))
	}
	return errors.Join(documents.Drop(ctx), nodes.Wipe(ctx), documents.Close(ctx), nodes.Close(ctx))
}

func (s *site) emptyRedis(ctx context.Context) error {
	options, err := redis.ParseURL(s.stores.RedisURL)
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	return errors.Join(client.FlushDB(ctx).Err(), client.Close())
}

// snapshots is a directory in which Elasticsearch may put snapshots; empty if there is none.
func (s *site) snapshots(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.stores.Elasticsearch+"/_nodes/settings?flat_settings=true", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct {
		Nodes map[string]struct {
			Settings map[string]json.RawMessage `json:"settings"`
		} `json:"nodes"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("read the settings of Elasticsearch: %w", err)
	}
	for _, node := range answer.Nodes {
		if path := bytes.Trim(node.Settings["path.repo"], `[]" `); len(path) > 0 {
			return filepath.Join(string(path), s.stores.Name), nil
		}
	}
	return "", nil
}
