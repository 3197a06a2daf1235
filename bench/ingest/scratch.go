package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/search"
)

// servers are the addresses of the four stores.
type servers struct {
	database, redis, elasticsearch, neo4j string
	neo4jUser, neo4jPassword              string
}

func serversFromEnvironment() (servers, error) {
	var missing []string
	get := func(variable string) string {
		value := os.Getenv(variable)
		if value == "" {
			missing = append(missing, variable)
		}
		return value
	}
	s := servers{
		database: get("LAYERS_TEST_DATABASE_URL"), redis: get("LAYERS_TEST_REDIS_URL"),
		elasticsearch: get("LAYERS_TEST_ELASTICSEARCH_URL"), neo4j: get("LAYERS_TEST_NEO4J_URL"),
		neo4jUser: os.Getenv("LAYERS_TEST_NEO4J_USER"), neo4jPassword: os.Getenv("LAYERS_TEST_NEO4J_PASSWORD"),
	}
	if len(missing) > 0 {
		return s, fmt.Errorf("not set: %s; run it as go run ./test/stores -- go run ./bench/ingest", strings.Join(missing, ", "))
	}
	return s, nil
}

// scratch is the part of each store that is one measurement's alone.
type scratch struct {
	servers
	name        string // index prefix and graph space
	databaseURL string
	database    *pgxpool.Pool
	redisURL    string
	redis       *redis.Client
}

func openScratch(ctx context.Context, on servers) (s *scratch, err error) {
	s = &scratch{servers: on, name: "bench-" + strings.ToLower(rand.Text())[:12]}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.drop())
		}
	}()
	if s.databaseURL, err = s.makeDatabase(ctx, s.databaseName()); err != nil {
		return s, err
	}
	if s.database, err = pgxpool.New(ctx, s.databaseURL); err != nil {
		return s, fmt.Errorf("connect to the new database: %w", err)
	}
	return s, s.findRedis(ctx)
}

func (s *scratch) databaseName() string { return strings.ReplaceAll(s.name, "-", "_") }

func (s *scratch) makeDatabase(ctx context.Context, name string) (string, error) {
	if err := s.administer(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	u, err := url.Parse(s.servers.database)
	if err != nil {
		return "", fmt.Errorf("the database's URL: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// administer runs statements on the server's own database.
func (s *scratch) administer(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.servers.database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// findRedis picks an empty logical database, since asynq's keys have no prefix.
func (s *scratch) findRedis(ctx context.Context) error {
	options, err := redis.ParseURL(s.servers.redis)
	if err != nil {
		return fmt.Errorf("the URL of Redis: %w", err)
	}
	for db := 1; db < 16; db++ {
		options.DB = db
		client := redis.NewClient(options)
		size, err := client.DBSize(ctx).Result()
		if err == nil && size == 0 {
			u, _ := url.Parse(s.servers.redis) // redis.ParseURL has accepted it
			u.Path = "/" + strconv.Itoa(db)
			s.redis, s.redisURL = client, u.String()
			return nil
		}
		if err := errors.Join(err, client.Close()); err != nil {
			return fmt.Errorf("look for an empty database in Redis: %w", err)
		}
	}
	return errors.New("none of Redis's databases 1 to 15 is empty")
}

// environment is what tells the program about the stores.
func (s *scratch) environment() []string {
	return append(os.Environ(),
		"DATABASE_URL="+s.databaseURL, "REDIS_URL="+s.redisURL,
		"ELASTICSEARCH_URL="+s.elasticsearch, "ELASTICSEARCH_PREFIX="+s.name,
		"NEO4J_URL="+s.neo4j, "NEO4J_USER="+s.neo4jUser, "NEO4J_PASSWORD="+s.neo4jPassword, "NEO4J_SPACE="+s.name,
	)
}

// drop removes everything that the measurement left in the stores.
func (s *scratch) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var errs []error
	if s.database != nil {
		s.database.Close()
	}
	for _, name := range []string{s.databaseName(), s.databaseName() + "_bare"} {
		errs = append(errs, s.administer(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"))
	}
	if s.redis != nil {
		errs = append(errs, s.redis.FlushDB(ctx).Err(), s.redis.Close())
	}
	errs = append(errs, s.dropIndexes(ctx), s.wipeGraph(ctx))
	return errors.Join(errs...)
}

func (s *scratch) dropIndexes(ctx context.Context) error {
	client, err := search.Open(search.Config{URLs: []string{s.elasticsearch}, Prefix: s.name})
	if err != nil {
		return err
	}
	return errors.Join(client.Drop(ctx), client.Close(ctx))
}

func (s *scratch) wipeGraph(ctx context.Context) error {
	client, err := graph.Open(graph.Config{URL: s.neo4j, User: s.neo4jUser, Password: s.neo4jPassword, Space: s.name})
	if err != nil {
		return err
	}
	return errors.Join(client.Wipe(ctx), client.Close(ctx))
}

// cursor is how far the stream of a host has been applied; 0 before its first event.
func (s *scratch) cursor(ctx context.Context, host string) (seq int64, err error) {
	err = s.database.QueryRow(ctx, "SELECT seq FROM cursor WHERE host = $1", host).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return seq, err
}

// waiting are the projections that still have something to do.
func (s *scratch) waiting(ctx context.Context) (map[string]bool, error) {
	rows, err := s.database.Query(ctx, `
		SELECT t FROM unnest(ARRAY['tables', 'search', 'graph']) t
		WHERE EXISTS (SELECT FROM outbox WHERE target = t) OR EXISTS (SELECT FROM sweeps WHERE target = t)`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	waiting := map[string]bool{}
	for _, name := range names {
		waiting[name] = true
	}
	return waiting, err
}

// check makes sure that what was measured is right: as many records as the stream
// leaves, and no dead letter.
func (s *scratch) check(ctx context.Context, present int) error {
	var records, letters int
	var reason string
	err := s.database.QueryRow(ctx, `SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM dead_letters),
		coalesce((SELECT stage || ': ' || reason FROM dead_letters LIMIT 1), '')`).Scan(&records, &letters, &reason)
	if err != nil {
		return fmt.Errorf("count what was indexed: %w", err)
	}
	if records != present || letters != 0 {
		return fmt.Errorf("%d records and %d dead letters were indexed, expected %d and none %s", records, letters, present, cmp.Or(reason, ""))
	}
	return nil
}
