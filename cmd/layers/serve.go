package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/appview"
	"github.com/layers-pub/layers-appview/appview/admin"
	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/appview/rest"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/replay"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/indexer/task"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

// apiConns is how many queries one API process has in PostgreSQL at a time: with
// fewer, requests wait for a connection; with more, for the server.
const apiConns = 16

// workConns is the same for a process with workers: four of them for each of three
// projections, and what hands tasks out to them. The writer has a session of its own.
const workConns = 16

// statementGrace is how long PostgreSQL lets a statement of the API run beyond the
// time that a request has. Requests cancel theirs in the server when they end; this is
// for those of a process that has gone.
const statementGrace = 5 * time.Second

func apiCommand() *cli.Command {
	return &cli.Command{
		Name:        "api",
		Usage:       "answer XRPC from the stores; run as many replicas as the load asks for",
		Description: "Holds no state. Needs the database that `layers indexer` fills, and no right on it but SELECT.",
		Flags:       slices.Concat(serveFlags(), metricsFlags(), storeFlags(), replicaFlags(), networkFlags(), followFlags(), runFlags()),
		Action: func(ctx context.Context, command *cli.Command) error {
			cfg, logger, err := begin(command, "database-url")
			if err != nil {
				return err
			}
			if cfg.RateLimits == traffic.FailClosed && cfg.RedisURL == "" {
				return problem(command, "rate-limits", "closed needs --redis-url (REDIS_URL), since nothing else counts")
			}
			collectLess()
			pool := store.Config{URL: cfg.DatabaseURL, MaxConns: apiConns, ReadOnly: true, Name: "layers api", StatementTime: cfg.RequestTime + statementGrace}
			if cfg.ReplicaURL != "" {
				pool.URL = cfg.ReplicaURL
			}
			p, err := openParts(ctx, cfg, logger, pool)
			if err != nil {
				return err
			}
			defer p.close(context.WithoutCancel(ctx))
			p.tellOfRights(ctx)
			server, err := p.server(p.queries(), nil)
			if err != nil {
				return err
			}
			return server.Run(ctx)
		},
	}
}

// tellOfRights warns of an API whose login may do what the API never has to.
func (p *parts) tellOfRights(ctx context.Context) {
	may, err := store.MayWrite(ctx, p.pool)
	if err != nil {
		p.logger.WarnContext(ctx, "it is not known what the API's login may do", "error", err)
	} else if may {
		p.logger.WarnContext(ctx, "the API's login may change records: give it one that is only a member of the reader's role", "role", store.ReaderRole)
	}
}

// The API keeps little but makes much that is soon dropped. With Go's default it
// would collect every few megabytes; with this, tails get shorter by a fifth, and
// collections are frequent again only where large records fill the memory.
const (
	apiGCPercent = 400
	apiMemory    = 512 << 20 // bytes; the pod has a gibibyte
)

// collectLess sets what the operator has not set by GOGC and GOMEMLIMIT.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(apiGCPercent)
	}
	limitMemory(apiMemory)
}

// What the roles that write keep is bounded, by the indexer's window above all, to some
// 200 MiB. By Go's default garbage may be as much again, and more where the cores are
// too busy to collect it in time: this has it collected before the whole process takes
// 512 MiB.
const writerMemory = 400 << 20 // bytes

// limitMemory sets how much Go's runtime takes before it collects more often, unless
// the operator has set it by GOMEMLIMIT.
func limitMemory(bytes int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}

func indexerCommand() *cli.Command {
	return &cli.Command{
		Name:  "indexer",
		Usage: "follow the network and keep the stores in step with it; a second one waits as standby",
		Description: "Brings the stores to this program's schema first, then subscribes from the stored cursor, and carries\n" +
			"changes on to the projections, unless --no-workers leaves that to `layers worker`.",
		Flags: slices.Concat(followFlags(), resyncFlags(), networkFlags(), storeFlags(), healthFlags(), metricsFlags(), runFlags(),
			backfillFlags(), eventFlags(), statisticsFlags(), adminFlags(), comparisonFlags(), []cli.Flag{&cli.BoolFlag{Name: "no-workers", Category: categoryRun, Sources: cli.EnvVars("LAYERS_NO_WORKERS"), Usage: "only write PostgreSQL and the outbox"}}),
		Action: func(ctx context.Context, command *cli.Command) error {
			return runRole(ctx, command, "layers indexer", func(p *parts, group *errgroup.Group, ctx context.Context) error {
				if err := store.Migrate(ctx, p.cfg.DatabaseURL, layout.Partitions(p.catalog), p.logger); err != nil {
					return fmt.Errorf("preparing PostgreSQL: %w", err)
				}
				if p.relations == nil { // what nobody keeps up to date any more
					if err := relations.New(p.pool).Clear(ctx); err != nil {
						return fmt.Errorf("preparing PostgreSQL: %w", err)
					}
				}
				line := p.indexer(p.routes())
				group.Go(func() error { return line.Run(ctx) })
				group.Go(func() error { return p.trimEvents(ctx) })
				group.Go(func() error { return p.count(ctx) })
				if err := p.prepare(ctx); err != nil {
					return err
				}
				group.Go(func() error { return p.compare(ctx, line.Leading) })
				if command.Bool("no-workers") {
					return nil
				}
				group.Go(func() error { return p.fill(ctx) })
				return p.work(ctx, line.Behind)
			})
		},
	}
}

func workerCommand() *cli.Command {
	return &cli.Command{
		Name:        "worker",
		Usage:       "carry changes on to the projections, beside an indexer; run any number",
		Description: "Takes outbox rows from PostgreSQL through Redis to the read tables, Elasticsearch and Neo4j.",
		Flags:       slices.Concat(storeFlags(), networkFlags(), healthFlags(), metricsFlags(), runFlags()),
		Action: func(ctx context.Context, command *cli.Command) error {
			return runRole(ctx, command, "layers worker", func(p *parts, _ *errgroup.Group, ctx context.Context) error {
				if err := p.prepare(ctx); err != nil {
					return err
				}
				return p.work(ctx, nil)
			})
		},
	}
}

// healthFlags are those of a role that listens for probes alone.
func healthFlags() []cli.Flag {
	return []cli.Flag{setting(categoryServe, "listen", "LAYERS_LISTEN", ":3000", "address of /health and /ready")}
}

// runRole runs a role that writes: its parts, and a server for probes and metrics.
func runRole(ctx context.Context, command *cli.Command, name string, start func(*parts, *errgroup.Group, context.Context) error) error {
	cfg, logger, err := begin(command, "database-url", "redis-url")
	if err != nil {
		return err
	}
	limitMemory(writerMemory)
	p, err := openParts(ctx, cfg, logger, store.Config{URL: cfg.DatabaseURL, MaxConns: workConns, Name: name})
	if err != nil {
		return err
	}
	defer p.close(context.WithoutCancel(ctx))
	operated, err := p.admin(ctx)
	if err != nil {
		return fmt.Errorf("preparing the routes for operators: %w", err)
	}
	server, err := p.server(nil, operated)
	if err != nil {
		return err
	}
	return together(ctx, func(group *errgroup.Group, ctx context.Context) error {
		group.Go(func() error { return server.Run(ctx) })
		return start(p, group, ctx)
	})
}

// together runs what start puts into a group until one of it fails or ctx ends.
func together(ctx context.Context, start func(*errgroup.Group, context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return start(group, ctx) })
	return group.Wait()
}

// begin reads the settings, insists on those that are required, and makes the logger.
func begin(command *cli.Command, required ...string) (config, *slog.Logger, error) {
	cfg, err := readConfig(command)
	if err != nil {
		return cfg, nil, err
	}
	if err := requireFlags(command, required...); err != nil {
		return cfg, nil, err
	}
	logger := newLogger(cfg, os.Stderr)
	redisSpeaksThrough(logger)
	return cfg, logger, nil
}

func (p *parts) queries() *xrpc.Service {
	return xrpc.New(p.catalog, store.NewReader(p.pool), p.directory())
}

// rest makes what answers web clients; nil without queries.
func (p *parts) rest(queries *xrpc.Service, follow *live.Service) (_ *rest.Service, err error) {
	if queries == nil {
		return nil, nil
	}
	kept := cache.Config{Version: version, Changes: store.NewChanges(p.pool), Registry: prometheus.DefaultRegisterer, Logger: p.logger.With("component", "cache")}
	if p.cfg.Cache {
		kept.RedisURL, kept.Roots = p.cfg.RedisURL, p.cfg.Roots
	}
	if p.cache, err = cache.New(kept); err != nil {
		return nil, fmt.Errorf("preparing the cache: %w", err)
	}
	return rest.New(rest.Deps{
		Catalog: p.catalog, Reads: store.NewReader(p.pool), XRPC: queries, Search: p.searches(), Graph: p.traversals(), Stats: statistics.NewReader(p.pool), Cache: p.cache, Live: follow, Version: version,
	}), nil
}

// follow makes what lets clients follow the index; nil without queries.
func (p *parts) follow(queries *xrpc.Service) *live.Service {
	if queries == nil {
		return nil
	}
	return live.New(live.Config{Origins: p.cfg.Origins}, store.NewReader(p.pool), queries, p.logger)
}

// server makes the HTTP side; without queries it answers probes alone, and operators.
func (p *parts) server(queries *xrpc.Service, operated *admin.Service) (*appview.Server, error) {
	var checks []appview.Check
	for name, ping := range p.pings() {
		checks = append(checks, appview.Check{Name: name, Ping: ping, Optional: queries != nil && name != "postgresql"})
	}
	if queries != nil { // the indexer brings the schema along itself
		checks = append(checks, appview.Check{Name: "schema", Ping: func(ctx context.Context) error { return store.CheckSchema(ctx, p.pool) }})
		for _, target := range p.targets() {
			checks = append(checks, appview.Check{Name: string(target), Ping: func(ctx context.Context) error { return p.filled(ctx, target) }, Optional: true})
		}
	}
	follow := p.follow(queries)
	endpoints, err := p.rest(queries, follow)
	if err != nil {
		return nil, err
	}
	var directory identity.Directory
	if queries != nil {
		directory = p.directory()
		if p.quotas, err = traffic.NewQuotas(p.cfg.RedisURL, p.cfg.Roots, cmp.Or(p.cfg.RateLimits, traffic.Off), prometheus.DefaultRegisterer, p.logger.With("component", "quotas")); err != nil {
			return nil, fmt.Errorf("preparing the rate limits: %w", err)
		}
	}
	server, err := appview.New(appview.Config{
		Listen: p.cfg.Listen, MetricsListen: p.cfg.MetricsListen, PublicURL: p.cfg.PublicURL, Version: version,
		TrustedProxies: p.cfg.Proxies, Origins: p.cfg.Origins, DrainDelay: p.cfg.DrainDelay, ShutdownTimeout: p.cfg.Drain, RequestTimeout: p.cfg.RequestTime, Concurrency: p.cfg.Concurrency,
		Admins: p.cfg.Admins, Premium: p.cfg.Premium,
	}, appview.Deps{XRPC: queries, REST: endpoints, Live: follow, Quotas: p.quotas, Directory: directory, Admin: operated, Checks: checks, Metrics: prometheus.DefaultRegisterer.(*prometheus.Registry), Logger: p.logger})
	if err != nil {
		return nil, fmt.Errorf("preparing the server: %w", err)
	}
	return server, nil
}

// filled fails with [appview.ErrFilling] while a projection is being filled. That
// PostgreSQL does not answer is for another check to say.
func (p *parts) filled(ctx context.Context, target record.Target) error {
	if filling, err := store.Filling(ctx, p.pool, target); err != nil || !filling {
		return nil //nolint:nilerr // see above
	}
	return appview.ErrFilling
}

// indexer makes the line, whose changes projections follow by these routes.
func (p *parts) indexer(routes store.Routes) *indexer.Indexer {
	identities := p.directory()
	writer := store.NewWriter(p.pool, routes, p.logger)
	if p.cfg.EventsKept == 0 {
		writer = writer.WithoutEvents()
	}
	verifier := verify.New(identities, verify.Lenient(p.cfg.Lenient))
	return indexer.New(indexer.Config{
		Firehose: firehose.New(firehose.Config{Hosts: p.cfg.Relays, Quiet: p.cfg.RelayQuiet, MaxBackoff: p.cfg.RelayMaxWait, UserAgent: userAgent(), Logger: p.logger}, nil),
		Verifier: verifier,
		Catalog:  p.catalog,
		Writer:   writer,
		Outbox:   store.NewOutbox(p.pool),
		Resync:   p.resync(identities, verifier, writer),
		Replays: replay.New(replay.Config{
			Catalog: p.catalog, Letters: store.NewDeadLetters(p.pool), Apply: writer.Apply, Logger: p.logger,
			Resync: func(ctx context.Context, did syntax.DID, reason string) error {
				_, err := store.NewResyncs(p.pool).Add(ctx, []store.Wanted{{DID: did, Reason: reason}})
				return err
			},
		}),
		Discovery:      p.discovery(),
		VerifiedHandle: identities.VerifiedHandle,
		Logger:         p.logger,
	})
}

// resync fetches repositories whole. The relays are the operator's choice and may be
// anywhere; what the network names is reached on the public Internet alone.
func (p *parts) resync(identities *directory.Directory, verifier *verify.Verifier, writer *store.Writer) *resync.Resync {
	operator := directory.Transport(true)
	network := operator
	if !p.cfg.AllowPrivate {
		network = directory.Transport(false)
	}
	for _, t := range []*http.Transport{operator, network} {
		t.ResponseHeaderTimeout = 0 // resync has its own, since a large repository may take its host a while
	}
	return resync.New(resync.Config{
		Queue: store.NewResyncs(p.pool), Contents: writer, Catalog: p.catalog, Follow: p.catalog.Followed(), Verifier: verifier,
		Identities: identities, Tombstoned: directory.ErrTombstoned, Relays: httpHosts(p.cfg.Relays), Network: network, Operator: operator, UserAgent: userAgent(), Logger: p.logger,
		Dir: p.cfg.Resync.Dir, Concurrency: p.cfg.Resync.Concurrency, HostRate: p.cfg.Resync.HostRate,
		Limits: resync.Limits{Bytes: p.cfg.Resync.MaxBytes}, FirstWait: p.cfg.Resync.FirstWait, HostWait: p.cfg.Resync.FirstWait / 2,
		AnswerTime: p.cfg.Resync.AnswerTime, StallTime: p.cfg.Resync.StallTime,
	})
}

// prepare prepares the projections, for as long as they do not answer.
func (p *parts) prepare(ctx context.Context) error {
	return p.persist(ctx, "preparing the projections", p.ensureProjections)
}

// work runs the dispatcher and the workers, which yield to a line of this process while
// it is behind.
func (p *parts) work(ctx context.Context, behind func() bool) error {
	cfg := task.Config{RedisURL: p.cfg.RedisURL, Roots: p.cfg.Roots, Targets: p.targets(), Logger: p.logger, Grace: p.cfg.Drain, Behind: behind, Traces: store.NewTraces(p.pool)}
	outbox := store.NewOutbox(p.pool)
	dispatcher, err := task.NewDispatcher(cfg, outbox)
	if err != nil {
		return fmt.Errorf("preparing the dispatcher: %w", err)
	}
	workers, err := task.NewWorkers(cfg, task.Stores{
		Catalog: p.catalog, Records: store.NewReader(p.pool), Outbox: outbox, DeadLetters: store.NewDeadLetters(p.pool),
		Tables: store.NewTables(p.pool), Search: p.search, Graph: p.graph, Relations: p.relations, FullText: p.documents(),
	})
	if err != nil {
		return fmt.Errorf("preparing the workers: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return dispatcher.Run(ctx) })
	group.Go(func() error { return workers.Run(ctx) })
	return group.Wait()
}

// fill has new search indexes filled.
func (p *parts) fill(ctx context.Context) error {
	return p.persist(ctx, "filling the search indexes", p.fillSearch)
}

const persistEvery = 5 * time.Second

const (
	mostEvents = 5_000_000 // changes that the log of events goes back, at most
	trimEvery  = 15 * time.Second
)

// trimEvents keeps the log of events within its bounds.
func (p *parts) trimEvents(ctx context.Context) error {
	log := store.NewEventLog(p.pool)
	for {
		if err := errors.Join(log.Trim(ctx, p.cfg.EventsKept, mostEvents), log.Purge(ctx)); err != nil && ctx.Err() == nil {
			p.logger.WarnContext(ctx, "the log of events was not trimmed, will repeat", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(trimEvery):
		}
	}
}

// persist repeats what a store that is away makes fail. The end of ctx is no error.
func (p *parts) persist(ctx context.Context, what string, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if err == nil {
			return nil
		}
		p.logger.ErrorContext(ctx, "a store failed, will repeat", "what", what, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(persistEvery):
		}
	}
}

// httpHosts are the relays' addresses for plain requests.
func httpHosts(relays []string) []string {
	var out []string
	for _, relay := range relays {
		out = append(out, strings.Replace(relay, "ws", "http", 1))
	}
	return out
}
