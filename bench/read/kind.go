package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// kind is one kind of question: how it is put to the API, and what the store then
// asks of PostgreSQL, for a number of records or repositories.
type kind struct {
	name       string
	paths      []string
	statements []statement
}

// statement is SQL with its arguments, as the store sends it.
type statement struct {
	sql  string
	args []any
}

const samples = 2000 // different questions of each kind

// prepare picks records and repositories that the database holds, and has the
// store read them once while a tracer notes the statements: what is compared with
// the API is then what the API runs, whatever the store makes of it.
func prepare(ctx context.Context, o options) ([]*kind, error) {
	cfg, err := pgxpool.ParseConfig(o.database)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	recorder := &recorder{}
	cfg.ConnConfig.Tracer = recorder
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	defer pool.Close()
	keys, err := sampleKeys(ctx, pool)
	if err != nil {
		return nil, err
	}
	reader := store.NewReader(pool)
	if _, err := reader.Get(ctx, keys[0]); err != nil { // what is read only once is read now
		return nil, err
	}
	get, list := &kind{name: "get"}, &kind{name: "list"}
	for _, key := range keys {
		recorder.next(get)
		if _, err := reader.Get(ctx, key); err != nil {
			return nil, err
		}
		get.paths = append(get.paths, "/xrpc/pub.layers.expression.getExpression?uri="+url.QueryEscape(key.String()))
		recorder.next(list)
		page, err := reader.List(ctx, store.Query{Collection: collection, Repo: &key.DID, Limit: 50})
		if err != nil {
			return nil, err
		}
		if len(page.Records) < 50 {
			return nil, fmt.Errorf("%s has %d records of %s: expected repositories with 50 or more", key.DID, len(page.Records), collection)
		}
		list.paths = append(list.paths, "/xrpc/pub.layers.expression.listExpressions?limit=50&repo="+url.QueryEscape(string(key.DID)))
	}
	return []*kind{get, list}, nil
}

func sampleKeys(ctx context.Context, pool *pgxpool.Pool) ([]record.Key, error) {
	rows, err := pool.Query(ctx, `
		SELECT did, rkey FROM records WHERE collection = $1 AND did IN
			(SELECT did FROM records WHERE collection = $1 GROUP BY did HAVING count(*) >= 50)
		ORDER BY hashtextextended(did || rkey, 0) LIMIT $2`, collection, samples)
	if err != nil {
		return nil, fmt.Errorf("pick records: %w", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.Key, error) {
		key := record.Key{Collection: collection}
		return key, row.Scan(&key.DID, &key.Rkey)
	})
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no repository with 50 records of %s", collection)
	}
	if err != nil {
		return nil, fmt.Errorf("pick records: %w", err)
	}
	return keys, nil
}

// recorder notes the statements that a pool runs.
type recorder struct {
	mu   sync.Mutex
	into *kind
}

// next has statements noted for a kind from now on.
func (r *recorder) next(k *kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.into = k
}

// TraceQueryStart is called by pgx with each statement.
func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.into != nil {
		r.into.statements = append(r.into.statements, statement{data.SQL, data.Args})
	}
	return ctx
}

// TraceQueryEnd is called by pgx after each statement.
func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// measure asks the API and PostgreSQL in turn and prints a row for each.
func (k *kind) measure(ctx context.Context, o options, base *url.URL, out io.Writer) (err error) {
	if len(k.statements) != len(k.paths) {
		return fmt.Errorf("the store ran %d statements for %d questions: expected one each", len(k.statements), len(k.paths))
	}
	api, closeAPI, err := newHTTPCallers(ctx, base, k.paths, o.connections)
	if err != nil {
		return err
	}
	defer closeAPI()
	bare, closeSQL, err := newSQLCallers(ctx, o, k.statements)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSQL()) }()
	var ofAPI, ofSQL []sample
	var ofPgbench []float64
	for round := range o.rounds + 1 {
		a, err := measure(ctx, o.duration, api)
		if err != nil {
			return err
		}
		s, err := measure(ctx, o.duration, bare)
		if err != nil {
			return err
		}
		p, err := pgbench(ctx, o, k.statements)
		if err != nil {
			return err
		}
		if round == 0 {
			continue // warming up
		}
		ofAPI, ofSQL, ofPgbench = append(ofAPI, a), append(ofSQL, s), append(ofPgbench, p)
	}
	k.print(out, middle(ofAPI), middle(ofSQL), median(ofPgbench))
	return nil
}

func (k *kind) print(out io.Writer, api, bare sample, pgbench float64) {
	fmt.Fprintf(out, "%-6s %-8s %10.0f %10s %10s\n", k.name, "API", api.perSecond, ms(api.p50), ms(api.p99))
	fmt.Fprintf(out, "%-6s %-8s %10.0f %10s %10s %10.2f\n", k.name, "SQL", bare.perSecond, ms(bare.p50), ms(bare.p99), api.perSecond/bare.perSecond)
	if pgbench > 0 {
		fmt.Fprintf(out, "%-6s %-8s %10.0f %10s %10s %10.2f\n", k.name, "pgbench", pgbench, "", "", api.perSecond/pgbench)
	}
}

// newSQLCallers opens connections to PostgreSQL that run the statements, prepared,
// and read every byte of the answers.
func newSQLCallers(ctx context.Context, o options, statements []statement) ([]caller, func() error, error) {
	var conns []*pgx.Conn
	closeAll := func() (err error) {
		for _, c := range conns {
			err = errors.Join(err, c.Close(context.WithoutCancel(ctx)))
		}
		return err
	}
	var callers []caller
	for range o.connections {
		conn, err := pgx.Connect(ctx, o.database)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("connect to PostgreSQL: %w", err), closeAll())
		}
		conns = append(conns, conn)
		callers = append(callers, func(rng *rand.Rand) error {
			s := statements[rng.IntN(len(statements))]
			rows, err := conn.Query(ctx, s.sql, s.args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := 0
			for rows.Next() {
				for _, value := range rows.RawValues() {
					n += len(value)
				}
			}
			if n == 0 && rows.Err() == nil {
				return errors.New("a statement answered nothing")
			}
			return rows.Err()
		})
	}
	return callers, closeAll, nil
}
