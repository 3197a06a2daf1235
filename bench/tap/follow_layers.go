package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// layers is the line of `layers indexer`, without workers.
type layers struct {
	network *network
	program string
	stores  *scratch.Stores
	process *program.Process
}

func newLayers(ctx context.Context, o options, n *network) (follower, error) {
	s, err := openStores(ctx)
	if err != nil {
		return nil, err
	}
	return &layers{network: n, program: o.program, stores: s}, nil
}

func (*layers) name() string { return "layers" }

func (l *layers) start(context.Context) (err error) {
	env := append(l.stores.Environment(),
		"LAYERS_RELAY_URL="+l.network.server.RelayURL(), "LAYERS_PLC_URL="+l.network.server.URL(), "LAYERS_ALLOW_PRIVATE_HOSTS=true",
		"LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LOG_LEVEL=warn")
	l.process, err = program.Launch(l.program, env, "indexer", "--no-workers")
	return err
}

func (l *layers) stop() error { return l.process.Stop() }

// caughtUp asks for the cursor, which commits with the records.
func (l *layers) caughtUp(ctx context.Context, _ int) (bool, error) {
	if err := l.process.Alive(); err != nil {
		return false, err
	}
	var seq int64
	err := l.stores.Database.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&seq)
	if err != nil {
		return false, fmt.Errorf("read the cursor: %w", err)
	}
	return seq >= l.network.world.LastSeq(), nil
}

func (l *layers) compare(ctx context.Context) error {
	if err := l.process.Alive(); err != nil {
		return err
	}
	rows, err := l.stores.Database.Query(ctx, "SELECT did, rev FROM repos WHERE sync = 'synchronized'")
	if err != nil {
		return fmt.Errorf("read repositories: %w", err)
	}
	found := map[syntax.DID]syntax.TID{}
	var did syntax.DID
	var rev syntax.TID
	if _, err := pgx.ForEachRow(rows, []any{&did, &rev}, func() error { found[did] = rev; return nil }); err != nil {
		return fmt.Errorf("read repositories: %w", err)
	}
	for did, head := range l.network.heads {
		if found[did] != head {
			return fmt.Errorf("%s is at rev %q, should be %s", did, found[did], head)
		}
	}
	want, records := 0, 0
	for range l.network.world.Records(simulate.View{}) {
		want++
	}
	err = l.stores.Database.QueryRow(ctx, "SELECT (SELECT count(*) FROM records) + (SELECT count(*) FROM dead_letters)").Scan(&records)
	if err == nil && records != want {
		err = fmt.Errorf("%d records are indexed, the network has %d", records, want)
	}
	return err
}

func (l *layers) used() time.Duration { return cpu(l.process.PID()) }

func (l *layers) drop() error { return l.stores.Drop() }

func openStores(ctx context.Context) (*scratch.Stores, error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis)
	if err != nil {
		return nil, err
	}
	return scratch.Open(ctx, servers)
}

// cpu is the time that a process has used so far; 0 where there is no /proc to tell.
func cpu(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // /proc counts in hundredths
}
