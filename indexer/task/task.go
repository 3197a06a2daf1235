// Package task moves outbox rows to asynq and carries each task out: stage 5 of
// the line, after the transaction that wrote the record and its outbox rows.
//
//	outbox ─► Dispatcher ─► asynq (Redis) ─► Workers ─► load, project, write ─► outbox row deleted
//
// PostgreSQL's outbox is what is durable; Redis only distributes the work. A row
// is leased to a dispatcher, named in a task together with many others, and
// deleted once its projection has been written. Whatever gets lost on the way (a
// task, a worker, all of Redis) is dispatched again when the lease runs out. A
// task carries no values: a worker reads the record's present row and writes
// that, so neither order nor repetition of tasks matters.
//
// Tasks get no ID of our own and are never archived. A repeated task does no
// harm, while an ID in use would be refused by asynq also for a dead task, and a
// refusal could not be told from success.
package task

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/telemetry"
)

// Config is shared by [Dispatcher] and [Workers]. Zero values take the defaults.
type Config struct {
	RedisURL string          // redis:// or rediss://
	Roots    *x509.CertPool  // whose certificate Redis must have; nil for the system's
	Targets  []record.Target // the projections that are configured
	Logger   *slog.Logger

	BatchSize   int           // records in a task; 256
	InFlight    int           // tasks of a target that may wait in Redis at a time; 32
	Lease       time.Duration // for which a dispatched row is not dispatched again; 1 min
	Idle        time.Duration // longest wait between two looks at an outbox that has less than a task's worth; 200 ms
	Concurrency int           // tasks that one process works on at a time, for each target; 4
	Timeout     time.Duration // for one task; 2 min, far below the hour for which Elasticsearch remembers deletes
	Grace       time.Duration // for tasks under way when Workers stop; 20 s
	// Behind tells whether the line has a backlog, while which projections yield to it; nil for never.
	Behind func() bool
	// Traces tells a dispatcher which traces rows belong to, where traces are exported; nil for none.
	Traces *store.Traces
}

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.BatchSize = cmp.Or(c.BatchSize, 256)
	c.InFlight = cmp.Or(c.InFlight, 32)
	c.Lease = cmp.Or(c.Lease, time.Minute)
	c.Idle = cmp.Or(c.Idle, 200*time.Millisecond)
	c.Concurrency = cmp.Or(c.Concurrency, 4)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Minute)
	c.Grace = cmp.Or(c.Grace, 20*time.Second)
	if c.Behind == nil {
		c.Behind = func() bool { return false }
	}
	return c
}

func openRedis(url string, roots *x509.CertPool) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("redis URL: %w", err)
	}
	if opts.TLSConfig != nil {
		opts.TLSConfig.RootCAs = roots
	}
	client := redis.NewClient(opts)
	telemetry.ObserveRedis(client) // for as long as the process lives
	return client, nil
}

// closeRedis closes connections that are not needed any more: how that goes matters to nobody.
func closeRedis(client *redis.Client) { _ = client.Close() }
