// Command read measures how fast the API answers, next to how fast PostgreSQL
// answers the same two statements with nothing in between: one record by its
// AT-URI, and a list of 50. Both are asked over the same number of connections,
// in turn, so that whatever else the machine does meets both alike.
//
//	go run ./test/stores --only postgres -- go run ./bench/read
//
// fills a scratch database, runs an API process over it, and drops the database
// afterwards. With -url and -database-url it measures an API that runs already.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/layers-pub/layers-appview/bench/scratch"
)

type options struct {
	url         string
	database    string
	connections int
	pool        int
	duration    time.Duration
	rounds      int
	records     int
	serve       bool
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "", "`address` of a running API; default: one is started on a scratch database")
	flag.StringVar(&o.database, "database-url", cmp.Or(os.Getenv("DATABASE_URL"), os.Getenv("LAYERS_TEST_DATABASE_URL")), "PostgreSQL that the API reads, or where to make the scratch database")
	flag.IntVar(&o.connections, "connections", 32, "connections that ask at once")
	flag.IntVar(&o.pool, "pool", 16, "connections to PostgreSQL of the API that is started")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "of one measurement")
	flag.IntVar(&o.rounds, "rounds", 3, "measurements of each kind; the median counts")
	flag.IntVar(&o.records, "records", 50_000, "in the scratch database")
	flag.BoolVar(&o.serve, "serve", false, "be the API process (used by this program itself)")
	flag.Parse()
	run := bench
	if o.serve {
		run = serve
	}
	if err := interruptible(run, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/read:", err)
		os.Exit(1)
	}
}

// interruptible ends a run early, but in order, on SIGINT and SIGTERM.
func interruptible(run func(context.Context, options, io.Writer) error, o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, o, os.Stdout)
}

// bench sets up what is missing, measures, and prints the table.
func bench(ctx context.Context, o options, out io.Writer) (err error) {
	if o.database == "" {
		return errors.New("expected -database-url, DATABASE_URL or LAYERS_TEST_DATABASE_URL")
	}
	if o.url == "" {
		stores, err := scratch.Open(ctx, scratch.Servers{PostgreSQL: o.database})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stores.Drop()) }()
		o.database = stores.DatabaseURL
		if err := fill(ctx, o.database, o.records); err != nil {
			return err
		}
		address, end, err := startAPI(ctx, o)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		o.url = "http://" + address
	}
	base, err := url.Parse(o.url)
	if err != nil {
		return fmt.Errorf("parse the API's address: %w", err)
	}
	kinds, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d connections, median of %d rounds of %s\n\n%-6s %-8s %10s %10s %10s %10s\n",
		o.connections, o.rounds, o.duration, "", "", "per second", "p50", "p99", "API/SQL")
	for _, k := range kinds {
		if err := k.measure(ctx, o, base, out); err != nil {
			return fmt.Errorf("measure %s: %w", k.name, err)
		}
	}
	return nil
}
