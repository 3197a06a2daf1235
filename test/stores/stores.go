package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// kind is in what form the stores are started.
type kind struct {
	small        bool // they need half the memory, start sooner, and do less in a second
	fullPostgres bool // see [fullpostgres]
}

// store is one of the four, with its name on the command line and in
// docker-compose.yml, the variable that carries its URL, and its native form.
type store struct {
	name     string
	variable string
	start    func(ctx context.Context, kind kind) (*running, error)
}

var all = []store{
	{"postgres", "LAYERS_TEST_DATABASE_URL", startPostgres},
	{"redis", "LAYERS_TEST_REDIS_URL", startRedis},
	{"elasticsearch", "LAYERS_TEST_ELASTICSEARCH_URL", startElasticsearch},
	{"neo4j", "LAYERS_TEST_NEO4J_URL", startNeo4j},
}

// running is a store that answers.
type running struct {
	url  string
	stop func() error
	died <-chan struct{} // closed when it has ended and nobody had asked it to
	log  func() string   // the end of its log
	turn switchable      // nil if it cannot be ended and started again
}

// stores are those that answer, by the variable that carries each URL.
type stores struct {
	urls     map[string]string
	turns    map[string]switchable // by the store's name, those that can be ended
	stops    []func() error
	stopping chan struct{}
}

// choose picks stores by their names; all of them if only is empty.
func choose(only string) ([]store, error) {
	if only == "" {
		return all, nil
	}
	var chosen []store
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s store) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--only: no store is called %q; there are postgres, redis, elasticsearch and neo4j", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// start starts the wanted stores that the environment does not give, all at once.
// The first failure ends the other starts.
func start(ctx context.Context, wanted []store, kind kind) (*stores, error) {
	up := &stores{urls: map[string]string{}, turns: map[string]switchable{}, stopping: make(chan struct{})}
	wanted = slices.DeleteFunc(slices.Clone(wanted), func(s store) bool {
		url := os.Getenv(s.variable)
		if url != "" {
			up.urls[s.variable] = url
			progress("%s: given by %s", s.name, s.variable)
		}
		return url != ""
	})
	if len(wanted) == 0 {
		return up, nil
	}
	if engineAnswers(ctx) {
		return up, up.startContainers(ctx, wanted, kind)
	}
	return up, up.startNatively(ctx, wanted, kind)
}

func (up *stores) startNatively(ctx context.Context, wanted []store, kind kind) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failures []error
	for _, s := range wanted {
		wg.Go(func() {
			began := time.Now()
			r, err := s.start(ctx, kind)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				progress("%s: ready after %s", s.name, time.Since(began).Round(100*time.Millisecond))
				up.add(s, r)
			case ctx.Err() == nil || !errors.Is(err, context.Canceled):
				failures = append(failures, fmt.Errorf("%s: %w", s.name, err))
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(failures, ctx.Err())...)
}

func (up *stores) add(s store, r *running) {
	up.urls[s.variable] = r.url
	up.stops = append(up.stops, r.stop)
	if r.turn != nil {
		up.turns[s.name] = r.turn
	}
	go func() {
		<-r.died
		select {
		case <-up.stopping:
		default:
			progress("%s HAS DIED while the command runs; the end of its log:\n%s", s.name, r.log())
		}
	}()
}

// environment is ours with the stores' variables.
func (up *stores) environment() []string {
	env := os.Environ()
	for variable, url := range up.urls {
		env = append(env, variable+"="+url)
	}
	return env
}

// stop stops what was started, all at once.
func (up *stores) stop() error {
	if up == nil {
		return nil
	}
	close(up.stopping)
	errs := make([]error, len(up.stops))
	var wg sync.WaitGroup
	for i, stop := range up.stops {
		wg.Go(func() { errs[i] = stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
