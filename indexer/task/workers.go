package task

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
	"github.com/layers-pub/layers-appview/internal/store/relations"
)

// Stores are what workers read and write. Search, Graph and FullText are nil where
// that target is not configured.
type Stores struct {
	Catalog     *catalog.Catalog
	Records     *store.Reader
	Outbox      *store.Outbox
	DeadLetters *store.DeadLetters
	Tables      *store.Tables
	Search      *search.Client
	Graph       *graph.Client
	Relations   *relations.Store // nil where that is not to be kept
	FullText    *fulltext.Documents
}

// sinks are the configured targets.
func (s Stores) sinks() map[record.Target]sink {
	out := map[record.Target]sink{record.Tables: tablesSink{s.Catalog, s.Tables, s.Records}}
	if s.Search != nil {
		out[record.Search] = searchSink{s.Catalog, s.Search}
	}
	if s.FullText != nil {
		out[record.FullText] = fullTextSink{s.Catalog, s.FullText, s.Records}
	}
	if s.Graph != nil {
		out[record.Graph] = graphSink{s.Catalog, s.Graph, s.Records, newKnowledgeCounters(s.Catalog, record.Graph)}
	}
	if s.Relations != nil {
		out[record.Relations] = relationsSink{s.Catalog, s.Relations, newKnowledgeCounters(s.Catalog, record.Relations)}
	}
	return out
}

// Workers carry out tasks. Any number of processes may have workers.
type Workers struct {
	cfg   Config
	from  Stores
	redis *redis.Client
}

// NewWorkers prepares workers; it does not connect. Errors are of the configuration.
func NewWorkers(cfg Config, stores Stores) (*Workers, error) {
	client, err := openRedis(cfg.RedisURL, cfg.Roots)
	if err != nil {
		return nil, err
	}
	return &Workers{cfg: cfg.withDefaults(), from: stores, redis: client}, nil
}

const (
	taskPoll    = 50 * time.Millisecond // between two looks at empty queues
	retryPoll   = time.Second           // between two looks for tasks whose worker died
	healthEvery = 15 * time.Second
)

// Run carries out tasks until ctx ends, which is not an error. Then it takes no
// more, gives those under way Config.Grace to end, and hands back what has not.
func (w *Workers) Run(ctx context.Context) error {
	defer closeRedis(w.redis)
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	stop := make(chan struct{})
	memory := semaphore.NewWeighted(memoryBytes)

	var servers []*asynq.Server
	for target, sink := range w.from.sinks() {
		logger := w.cfg.Logger.With("component", "worker", "target", string(target))
		guard := newBreaker(target, sink.ping, logger)
		go guard.run(life)
		one := &worker{
			target: target, reader: w.from.Records, outbox: w.from.Outbox, letters: w.from.DeadLetters,
			sink: sink, memory: memory, stop: stop, hold: w.cfg.Timeout / 2, logger: logger,
			breaker: guard,
		}
		server := w.server(life, target, logger)
		if err := server.Start(asynq.HandlerFunc(one.process)); err != nil {
			close(stop)
			shutdown(servers)
			return fmt.Errorf("starting workers of %s: %w", target, err)
		}
		servers = append(servers, server)
	}
	<-ctx.Done()
	close(stop)
	shutdown(servers)
	return nil
}

// server takes tasks from the queues of one target, the most urgent first.
func (w *Workers) server(life context.Context, target record.Target, logger *slog.Logger) *asynq.Server {
	names := map[string]int{}
	for q, priority := range priorities {
		names[q.name(target)] = priority
	}
	return asynq.NewServerFromRedisClient(w.redis, asynq.Config{
		Concurrency:              w.cfg.Concurrency,
		BaseContext:              func() context.Context { return life },
		Queues:                   names,
		StrictPriority:           true,
		TaskCheckInterval:        taskPoll,
		DelayedTaskCheckInterval: retryPoll,
		HealthCheckInterval:      healthEvery,
		ShutdownTimeout:          w.cfg.Grace,
		RetryDelayFunc:           func(n int, _ error, _ *asynq.Task) time.Duration { return backoff(n) },
		Logger:                   asynqLog{logger},
		LogLevel:                 asynq.InfoLevel,
	})
}

// shutdown stops servers together, so that they share the time they are given.
func shutdown(servers []*asynq.Server) {
	var stopped sync.WaitGroup
	for _, s := range servers {
		stopped.Go(s.Shutdown)
	}
	stopped.Wait()
}

// asynqLog lets asynq speak through slog. What it tells of its own life at level
// Info is of interest to its developers alone.
type asynqLog struct{ logger *slog.Logger }

func (l asynqLog) Debug(args ...any) { l.logger.Debug("asynq", "says", fmt.Sprint(args...)) }

func (l asynqLog) Info(args ...any)  { l.logger.Debug("asynq", "says", fmt.Sprint(args...)) }
func (l asynqLog) Warn(args ...any)  { l.logger.Warn("asynq", "says", fmt.Sprint(args...)) }
func (l asynqLog) Error(args ...any) { l.logger.Error("asynq", "says", fmt.Sprint(args...)) }

// Fatal is for what asynq thinks should end the program; that is not for it to say.
func (l asynqLog) Fatal(args ...any) { l.logger.Error("asynq", "says", fmt.Sprint(args...)) }
