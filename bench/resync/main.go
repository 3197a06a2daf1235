// Command resync measures how a large repository is fetched whole: how many records
// a second, and how much memory the indexer needs for it.
//
//	go run ./test/stores -only postgres,redis -- go run ./bench/resync
//
// It makes a repository of a million records, in the cache, and serves it from a
// network of its own, whose stream says nothing. The real `layers indexer` finds it
// by backfill. Then a tenth of the records are gone and another tenth changed, and
// it is fetched again: what counts then is the comparison.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/bench/program"
)

type options struct {
	records int
	program string
	verbose bool
}

func main() {
	var o options
	flag.IntVar(&o.records, "records", 1_000_000, "in the repository")
	flag.StringVar(&o.program, "program", "", "`path` of the layers program; built from the tree by default")
	flag.BoolVar(&o.verbose, "v", false, "show the indexer's log when it has ended")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/resync:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	var remove func()
	if o.program, remove, err = program.Given(ctx, o.program); err != nil {
		return err
	}
	defer remove()
	of, err := openArchives(o.records)
	if err != nil {
		return err
	}
	h, err := serve(of)
	if err != nil {
		return err
	}
	defer h.server.Close()
	db, err := openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop()) }()
	return (&measurement{options: o, archives: of, host: h, database: db}).run(ctx)
}

type measurement struct {
	options
	archives archives
	host     *host
	database *database
}

func (m *measurement) run(ctx context.Context) (err error) {
	environment := append(append(os.Environ(), m.host.environment()...), "DATABASE_URL="+m.database.url, "REDIS_URL="+os.Getenv("LAYERS_TEST_REDIS_URL"))
	m.show(false)
	ix, err := program.Launch(m.program, environment, "indexer", "--no-workers")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ix.Stop()) }()
	connected, err := ix.Await(ctx, "firehose connected")
	if err != nil {
		return err
	}
	fmt.Printf("%-22s %10s %10s %12s %10s\n", "", "records", "seconds", "records/s", "peak MiB")
	if err := m.measure(ctx, ix, state{m.records, false}, "first backfill", connected.At); err != nil {
		return err
	}
	m.show(true)
	began := time.Now()
	again, err := program.Launch(m.program, environment, "backfill", "--repo", string(account))
	if err != nil {
		return err
	}
	if err := m.measure(ctx, ix, state{m.records, true}, "a fifth is different", began); err != nil {
		return errors.Join(err, again.Stop())
	}
	return again.Stop()
}

// show has the host serve one state of the repository.
func (m *measurement) show(edited bool) {
	path := m.archives.path(edited)
	m.host.serves.Store(&path)
}

// measure waits until the index holds a state, and prints how long that took.
func (m *measurement) measure(ctx context.Context, ix *program.Process, want state, name string, began time.Time) error {
	for {
		rev, sync, err := m.database.repo(ctx)
		if err != nil {
			return err
		}
		if rev == string(want.rev()) && sync == "synchronized" {
			break
		}
		if err := ix.Alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	took := time.Since(began)
	if m.host.asked.Load() == 0 {
		return errors.New("the repository was never asked for")
	}
	records, changed, err := m.database.count(ctx)
	if err != nil {
		return err
	}
	if records != want.present() || (changed > 0) != want.edited {
		return fmt.Errorf("%d records are indexed, %d of them changed; the repository has %d", records, changed, want.present())
	}
	fmt.Printf("%-22s %10d %10.1f %12.0f %10.0f\n", name, records, took.Seconds(), float64(m.records)/took.Seconds(), program.PeakMemory(ix.PID()))
	return nil
}

// database is one of this benchmark's own.
type database struct {
	server, name, url string
}

func openDatabase(ctx context.Context) (*database, error) {
	server := os.Getenv("LAYERS_TEST_DATABASE_URL")
	if server == "" || os.Getenv("LAYERS_TEST_REDIS_URL") == "" {
		return nil, errors.New("LAYERS_TEST_DATABASE_URL and LAYERS_TEST_REDIS_URL are not set; run it as go run ./test/stores -only postgres,redis -- go run ./bench/resync")
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("the database's URL: %w", err)
	}
	d := &database{server: server, name: "bench_" + strings.ToLower(rand.Text())[:12]}
	u.Path = "/" + d.name
	d.url = u.String()
	return d, d.on(ctx, d.server, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE DATABASE "+d.name)
		return err
	})
}

func (d *database) on(ctx context.Context, address string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

func (d *database) repo(ctx context.Context) (rev, sync string, err error) {
	err = d.on(ctx, d.url, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "SELECT rev, sync FROM repos WHERE did = $1", account).Scan(&rev, &sync)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return rev, sync, err
}

func (d *database) count(ctx context.Context) (records, changed int, err error) {
	err = d.on(ctx, d.url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE value ->> 'text' LIKE '%put right%') FROM records").Scan(&records, &changed)
	})
	return records, changed, err
}

func (d *database) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return d.on(ctx, d.server, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)")
		return err
	})
}
