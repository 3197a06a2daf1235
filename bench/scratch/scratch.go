// Package scratch gives a benchmark a part of the stores that is its own: a database,
// a logical Redis, index names and a graph space, all of which it takes away again.
package scratch

import (
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

// Servers are the addresses of the stores. Those that were not asked for are empty.
type Servers struct {
	PostgreSQL, Redis, Elasticsearch, Neo4j string
	Neo4jUser, Neo4jPassword                string
}

// Kind is one of the four stores, as test/stores names it.
type Kind string

// The stores.
const (
	PostgreSQL    Kind = "postgres"
	Redis         Kind = "redis"
	Elasticsearch Kind = "elasticsearch"
	Neo4j         Kind = "neo4j"
)

// Find reads the addresses of the stores that a benchmark needs from the environment,
// as test/stores sets it.
func Find(kinds ...Kind) (Servers, error) {
	s := Servers{Neo4jUser: os.Getenv("LAYERS_TEST_NEO4J_USER"), Neo4jPassword: os.Getenv("LAYERS_TEST_NEO4J_PASSWORD")}
	variables := map[Kind]string{
		PostgreSQL: "LAYERS_TEST_DATABASE_URL", Redis: "LAYERS_TEST_REDIS_URL",
		Elasticsearch: "LAYERS_TEST_ELASTICSEARCH_URL", Neo4j: "LAYERS_TEST_NEO4J_URL",
	}
	into := map[Kind]*string{PostgreSQL: &s.PostgreSQL, Redis: &s.Redis, Elasticsearch: &s.Elasticsearch, Neo4j: &s.Neo4j}
	var missing, only []string
	for _, kind := range kinds {
		*into[kind] = os.Getenv(variables[kind])
		if only = append(only, string(kind)); *into[kind] == "" {
			missing = append(missing, variables[kind])
		}
	}
	if len(missing) > 0 {
		return s, fmt.Errorf("not set: %s; run it as go run ./test/stores -only %s -- …", strings.Join(missing, ", "), strings.Join(only, ","))
	}
	return s, nil
}

// Stores are a benchmark's own parts.
type Stores struct {
	Servers
	// Name is the prefix of its indexes and the name of its graph space.
	Name        string
	DatabaseURL string
	Database    *pgxpool.Pool
	RedisURL    string
	redis       *redis.Client
	databases   []string
}

// Open makes a part of each server whose address is known.
func Open(ctx context.Context, on Servers) (s *Stores, err error) {
	s = &Stores{Servers: on, Name: "bench-" + strings.ToLower(rand.Text())[:12]}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Drop())
		}
	}()
	if s.DatabaseURL, err = s.MakeDatabase(ctx, s.DatabaseName()); err != nil {
		return s, err
	}
	if s.Database, err = pgxpool.New(ctx, s.DatabaseURL); err != nil {
		return s, fmt.Errorf("connect to the new database: %w", err)
	}
	if on.Redis == "" {
		return s, nil
	}
	return s, s.findRedis(ctx)
}

// DatabaseName is the name of its database.
func (s *Stores) DatabaseName() string { return strings.ReplaceAll(s.Name, "-", "_") }

// MakeDatabase makes a database, which goes with the others, and returns its URL.
func (s *Stores) MakeDatabase(ctx context.Context, name string) (string, error) {
	u, err := url.Parse(s.PostgreSQL)
	if err != nil {
		return "", fmt.Errorf("the database's URL: %w", err)
	}
	if err := s.administer(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	s.databases = append(s.databases, name)
	u.Path = "/" + name
	return u.String(), nil
}

// administer runs a statement on the server's own database.
func (s *Stores) administer(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.PostgreSQL)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// findRedis picks an empty logical database, since asynq's keys have no prefix.
func (s *Stores) findRedis(ctx context.Context) error {
	options, err := redis.ParseURL(s.Redis)
	if err != nil {
		return fmt.Errorf("the URL of Redis: %w", err)
	}
	for db := 1; db < 16; db++ {
		options.DB = db
		client := redis.NewClient(options)
		size, err := client.DBSize(ctx).Result()
		if err == nil && size == 0 {
			u, _ := url.Parse(s.Redis) // redis.ParseURL has accepted it
			u.Path = "/" + strconv.Itoa(db)
			s.redis, s.RedisURL = client, u.String()
			return nil
		}
		if err := errors.Join(err, client.Close()); err != nil {
			return fmt.Errorf("look for an empty database in Redis: %w", err)
		}
	}
	return errors.New("none of Redis's databases 1 to 15 is empty")
}

// Environment is that of this process, with what tells the program about the stores.
func (s *Stores) Environment() []string {
	env := append(os.Environ(), "DATABASE_URL="+s.DatabaseURL)
	if s.Redis != "" {
		env = append(env, "REDIS_URL="+s.RedisURL)
	}
	if s.Elasticsearch != "" {
		env = append(env, "ELASTICSEARCH_URL="+s.Elasticsearch, "ELASTICSEARCH_PREFIX="+s.Name)
	}
	if s.Neo4j != "" {
		env = append(env, "NEO4J_URL="+s.Neo4j, "NEO4J_USER="+s.Neo4jUser, "NEO4J_PASSWORD="+s.Neo4jPassword, "NEO4J_SPACE="+s.Name)
	}
	return env
}

// Drop removes everything that the benchmark left in the stores.
func (s *Stores) Drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var errs []error
	if s.Database != nil {
		s.Database.Close()
	}
	for _, name := range s.databases {
		errs = append(errs, s.administer(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"))
	}
	if s.redis != nil {
		errs = append(errs, s.redis.FlushDB(ctx).Err(), s.redis.Close())
	}
	if s.Elasticsearch != "" {
		errs = append(errs, s.dropIndexes(ctx))
	}
	if s.Neo4j != "" {
		errs = append(errs, s.wipeGraph(ctx))
	}
	return errors.Join(errs...)
}

func (s *Stores) dropIndexes(ctx context.Context) error {
	client, err := search.Open(search.Config{URLs: []string{s.Elasticsearch}, Prefix: s.Name})
	if err != nil {
		return err
	}
	return errors.Join(client.Drop(ctx), client.Close(ctx))
}

func (s *Stores) wipeGraph(ctx context.Context) error {
	client, err := graph.Open(graph.Config{URL: s.Neo4j, User: s.Neo4jUser, Password: s.Neo4jPassword, Space: s.Name})
	if err != nil {
		return err
	}
	return errors.Join(client.Wipe(ctx), client.Close(ctx))
}

// Waiting are the projections that still have something to do.
func (s *Stores) Waiting(ctx context.Context) (map[string]bool, error) {
	rows, err := s.Database.Query(ctx, `
		SELECT t FROM (SELECT DISTINCT target FROM routes) AS known (t)
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
