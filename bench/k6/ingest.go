package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
)

// ingest is a network that writes at a rate, and the indexer that follows it.
type ingest struct {
	bench            *bench
	network, indexer *program.Process
	began            time.Time
	before           int
}

func (b *bench) ingest(ctx context.Context, rate float64) (in *ingest, err error) {
	in = &ingest{bench: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.stop())
		}
	}()
	// Another seed each time: other accounts.
	in.network, err = program.Launch(b.program, os.Environ(), "simulate", "--listen", "127.0.0.1:0", "--authors", "50",
		"--records", "100000000", "--rate", fmt.Sprint(max(rate, 1)), "--seed", fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		return in, err
	}
	line, err := in.network.Await(ctx, "LAYERS_RELAY_URL=")
	if err != nil {
		return in, err
	}
	environment := append(b.world.Environment(), strings.Fields(line.Text)...)
	in.indexer, err = program.Launch(b.program, append(environment, "LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0"), "indexer")
	if err != nil {
		return in, err
	}
	_, err = in.indexer.Await(ctx, "firehose connected")
	return in, err
}

// begin has the rate be counted from now on. There may be no ingest at all.
func (in *ingest) begin(ctx context.Context) (err error) {
	if in == nil {
		return nil
	}
	in.before, err = in.records(ctx)
	in.began = time.Now()
	return err
}

func (in *ingest) records(ctx context.Context) (n int, err error) {
	err = in.bench.world.Database.QueryRow(ctx, "SELECT count(*) FROM records").Scan(&n)
	return n, err
}

// rate is how many records a second came into PostgreSQL; edits are not counted.
func (in *ingest) rate(ctx context.Context) float64 {
	if in == nil {
		return 0
	}
	now, err := in.records(ctx)
	if err != nil {
		return 0
	}
	return float64(now-in.before) / time.Since(in.began).Seconds()
}

func (in *ingest) stop() error { return errors.Join(in.indexer.Stop(), in.network.Stop()) }
