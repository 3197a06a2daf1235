package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/embedpg"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "run everything in one process: embedded PostgreSQL and Redis, indexer, API, and a simulated network",
		Description: "Needs nothing installed. The first run downloads PostgreSQL. Data is thrown away at the end, unless --data\n" +
			"names a directory. --relay follows a real host in place of the simulated network.",
		Flags: slices.Concat([]cli.Flag{
			setting(categoryServe, "listen", "LAYERS_LISTEN", "127.0.0.1:3000", "address of XRPC, /health and /ready"),
			setting(categoryServe, "metrics-listen", "LAYERS_METRICS_LISTEN", "127.0.0.1:9090", "address of /metrics and profiles"),
			&cli.StringFlag{Name: "relay", Category: categoryFollow, Usage: "relay or PDS to follow, such as wss://bsky.network"},
			&cli.StringFlag{Name: "data", Category: categoryStores, Usage: "directory that keeps PostgreSQL's data between runs"},
			&cli.IntFlag{Name: "records", Category: categoryFollow, Value: 500, Usage: "records that the simulated network begins with"},
			&cli.FloatFlag{Name: "rate", Category: categoryFollow, Value: 2, Usage: "changes a second that it goes on with"},
			&cli.Uint64Flag{Name: "seed", Category: categoryFollow, Value: 1, Usage: "what the simulated network follows from"},
		}, resyncFlags(), networkFlags(), backfillFlags(), eventFlags(), []cli.Flag{
			setting(categoryRun, "log-level", "LOG_LEVEL", "warn", "debug, info, warn or error"),
			setting(categoryRun, "log-format", "LOG_FORMAT", "", "text or json (default: text on a terminal, json otherwise)"),
		}),
		Action: func(ctx context.Context, command *cli.Command) error {
			cfg, logger, err := begin(command)
			if err != nil {
				return err
			}
			cfg.Drain, cfg.Statistics = 10*time.Second, 15*time.Second
			return (&dev{out: command.Root().Writer, command: command, parts: parts{cfg: cfg, logger: logger}}).run(ctx)
		},
	}
}

// dev is the whole system in one process.
type dev struct {
	parts
	out     io.Writer
	command *cli.Command
	address string      // of the API
	filled  atomic.Bool // the simulated network has its first records
}

// run starts the parts in order and stops them in the reverse one: the stores go
// last, since what drains still needs them.
func (d *dev) run(ctx context.Context) error {
	stopStores, err := d.startStores(ctx)
	if err != nil {
		return err
	}
	defer stopStores()
	generate, stopNetwork, err := d.startNetwork()
	if err != nil {
		return err
	}
	defer stopNetwork()
	p, err := openParts(ctx, d.cfg, d.logger, store.Config{URL: d.cfg.DatabaseURL, MaxConns: 16, Name: "layers dev"})
	if err != nil {
		return err
	}
	defer p.close(context.WithoutCancel(ctx))
	d.parts = *p
	if err := d.migrate(ctx); err != nil {
		return err
	}
	server, err := d.server(d.queries(), nil)
	if err != nil {
		return err
	}
	d.address = "http://" + server.Addr()
	line := d.indexer(d.routes())
	return together(ctx, func(group *errgroup.Group, ctx context.Context) error {
		group.Go(func() error { return server.Run(ctx) })
		group.Go(func() error { return generate(ctx) })
		group.Go(func() error { return line.Run(ctx) })
		group.Go(func() error { return d.trimEvents(ctx) })
		group.Go(func() error { return d.count(ctx) })
		group.Go(func() error { return d.report(ctx) })
		return d.work(ctx, line.Behind)
	})
}

func (d *dev) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// startStores starts PostgreSQL, embedded, and Redis, in the process.
func (d *dev) startStores(ctx context.Context) (stop func(), err error) {
	d.say("starting PostgreSQL %s (the first run downloads it)", embedpg.Version)
	data := d.command.String("data")
	if data != "" {
		if data, err = filepath.Abs(data); err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
	}
	server, err := embedpg.Start(context.WithoutCancel(ctx), embedpg.Config{DataDir: data, Logger: d.logger})
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	redis, err := miniredis.Run()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting Redis: %w", err), server.Stop())
	}
	d.cfg.DatabaseURL, d.cfg.RedisURL = server.URL(), "redis://"+redis.Addr()
	return func() {
		redis.Close()
		if err := server.Stop(); err != nil {
			d.logger.Error("stopping PostgreSQL failed", "error", err)
		}
	}, nil
}

// startNetwork serves the simulated network, unless a real one is named. generate
// fills it and runs until its context ends.
func (d *dev) startNetwork() (generate func(context.Context) error, stop func(), err error) {
	if relay := d.command.String("relay"); relay != "" {
		d.cfg.Relays = strings.Split(relay, ",")
		d.filled.Store(true)
		return func(context.Context) error { return nil }, func() {}, nil
	}
	d.say("making a simulated network with %d records", d.command.Int("records"))
	world, err := simulate.NewWorld(simulate.Config{Seed: d.command.Uint64("seed"), Now: time.Now})
	if err != nil {
		return nil, nil, fmt.Errorf("making the network: %w", err)
	}
	generator, err := simulate.NewGenerator(world, simulate.Script{Records: d.command.Int("records"), Edits: 10, Live: true})
	if err != nil {
		return nil, nil, fmt.Errorf("making the network's accounts: %w", err)
	}
	server := simulate.NewServer(world, simulate.ServerConfig{Logger: d.logger})
	if err := server.Start("127.0.0.1:0"); err != nil {
		return nil, nil, fmt.Errorf("serving the network: %w", err)
	}
	d.cfg.Relays, d.cfg.PLCURL, d.cfg.AllowPrivate = []string{server.RelayURL()}, server.URL(), true
	stop = func() {
		generator.Stop()
		if err := errors.Join(server.Stop(), world.Close()); err != nil {
			d.logger.Error("stopping the network failed", "error", err)
		}
	}
	return func(ctx context.Context) error { return d.generate(ctx, generator) }, stop, nil
}

// generate writes the corpora as fast as it goes, and then edits at the given rate.
func (d *dev) generate(ctx context.Context, generator *simulate.Generator) error {
	for range d.command.Int("records") {
		if _, err := generator.Step(); err != nil {
			return fmt.Errorf("generating records: %w", err)
		}
	}
	d.filled.Store(true)
	if err := generator.Run(ctx, d.command.Float("rate")); err != nil {
		return fmt.Errorf("generating edits: %w", err)
	}
	return nil
}

// report prints a progress line until the index has caught up, then what to try.
func (d *dev) report(ctx context.Context) error {
	reader, outbox := store.NewReader(d.pool), store.NewOutbox(d.pool)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		counts, err := reader.Count(ctx)
		if err != nil {
			continue // the next tick asks again
		}
		depth, err := outbox.Depth(ctx, record.Tables)
		if err != nil {
			continue
		}
		d.say("indexed %d records of %d repositories; %d layers on their way to the read tables", counts.Records, counts.Repos, depth.Rows)
		if d.filled.Load() && counts.Records > 0 && depth.Empty() {
			return d.invite(ctx, reader)
		}
	}
}

// invite prints addresses that answer, from what is really in the index.
func (d *dev) invite(ctx context.Context, reader *store.Reader) error {
	page, err := reader.List(ctx, store.Query{Collection: "pub.layers.corpus.corpus", Limit: 1})
	if err != nil {
		return fmt.Errorf("listing corpora: %w", err)
	}
	d.say("\nready: %s   (stop with Ctrl-C)\nmetrics: http://%s/metrics", d.address, d.cfg.MetricsListen)
	if len(page.Records) == 0 {
		return nil
	}
	corpus := page.Records[0].Key
	d.say("\ntry:\n  curl '%s/xrpc/pub.layers.corpus.listCorpora?repo=%s'", d.address, corpus.DID)
	d.say("  curl '%s/xrpc/pub.layers.corpus.getCorpus?uri=%s'", d.address, corpus)
	d.say("  curl '%s/xrpc/pub.layers.expression.listExpressions?repo=%s&limit=3'", d.address, corpus.DID)
	d.say("  curl '%s/api/v1/expressions?limit=3&fields=text'", d.address)
	d.say("  curl '%s/ready'", d.address)
	d.say("\nor open %s/docs", d.address)
	return nil
}
