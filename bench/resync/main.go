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
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
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
	program.Exit(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) (err error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis)
	if err != nil {
		return err
	}
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
	stores, err := scratch.Open(ctx, servers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stores.Drop()) }()
	return (&measurement{options: o, archives: of, host: h, Stores: stores}).run(ctx)
}

type measurement struct {
	options
	archives archives
	host     *host
	*scratch.Stores
}

func (m *measurement) run(ctx context.Context) (err error) {
	environment := append(m.Environment(), m.host.environment()...)
	m.show(false)
	// With its workers, as a million rows that nobody takes from the outbox would stop it.
	ix, err := program.Launch(m.program, environment, "indexer")
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
		rev, sync, err := m.repo(ctx)
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
	records, changed, err := m.count(ctx)
	if err != nil {
		return err
	}
	if records != want.present() || (changed > 0) != want.edited {
		return fmt.Errorf("%d records are indexed, %d of them changed; the repository has %d", records, changed, want.present())
	}
	fmt.Printf("%-22s %10d %10.1f %12.0f %10.0f\n", name, records, took.Seconds(), float64(m.records)/took.Seconds(), program.PeakMemory(ix.PID()))
	return nil
}

func (m *measurement) repo(ctx context.Context) (rev, sync string, err error) {
	err = m.Database.QueryRow(ctx, "SELECT rev, sync FROM repos WHERE did = $1", account).Scan(&rev, &sync)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	return rev, sync, err
}

func (m *measurement) count(ctx context.Context) (records, changed int, err error) {
	err = m.Database.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE value ->> 'text' LIKE '%put right%') FROM records").Scan(&records, &changed)
	return records, changed, err
}
