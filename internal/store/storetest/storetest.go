// Package storetest gives each test a database of its own, on a real PostgreSQL.
package storetest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Variable names the environment variable with the URL of a PostgreSQL whose login
// is a superuser. Tests make databases there, and drop them.
const Variable = "LAYERS_TEST_DATABASE_URL"

const setupTime = 2 * time.Minute // on a machine that does much else

// Database is a database with the present schema, and nothing in it.
type Database struct {
	URL  string
	Pool *pgxpool.Pool // may write; closed when the test ends
}

// New makes a database with partitions for the given collections. It is dropped
// when the test ends.
func New(t testing.TB, partitions ...store.Partition) *Database {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupTime)
	defer cancel()
	template, err := ensureTemplate(ctx, adminURL(t), partitions)
	if err != nil {
		t.Fatalf("make a template database: %v", err)
	}
	db := &Database{URL: create(ctx, t, "TEMPLATE "+template)}
	if db.Pool, err = store.Open(ctx, store.Config{URL: db.URL, MaxConns: 8, Name: t.Name()}); err != nil {
		t.Fatalf("open the database: %v", err)
	}
	t.Cleanup(db.Pool.Close)
	return db
}

// Empty makes a database without a schema, and returns its URL. It is dropped when
// the test ends.
func Empty(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupTime)
	defer cancel()
	return create(ctx, t, "")
}

// Writer makes a writer and takes the lock for it until the test ends.
func (d *Database) Writer(t testing.TB, routes store.Routes) *store.Writer {
	t.Helper()
	w := store.NewWriter(d.Pool, routes, slog.New(slog.DiscardHandler))
	release, _, err := w.Lock(t.Context())
	if err != nil {
		t.Fatalf("take the writer's lock: %v", err)
	}
	t.Cleanup(release)
	return w
}

// adminURL is where databases are made.
func adminURL(t testing.TB) string {
	t.Helper()
	address := os.Getenv(Variable)
	if address == "" {
		t.Fatalf("%s is not set: run `make test`, which starts the stores that tests need", Variable)
	}
	return address
}

// create makes a database and returns its URL.
func create(ctx context.Context, t testing.TB, options string) string {
	t.Helper()
	admin, name := adminURL(t), "layers_test_"+strings.ToLower(rand.Text())
	if err := execute(ctx, admin, "CREATE DATABASE "+name+" "+options); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTime)
		defer cancel()
		if err := execute(ctx, admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	address, err := databaseURL(admin, name)
	if err != nil {
		t.Fatalf("%s: %v", Variable, err)
	}
	return address
}

// databaseURL is the URL of another database on the same server.
func databaseURL(admin, name string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

func execute(ctx context.Context, address, statement string) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

// Hide makes an account inactive, or active again, and nothing else of what an event
// would that says so.
func (d *Database) Hide(ctx context.Context, did syntax.DID, hidden bool) error {
	_, err := d.Pool.Exec(ctx, `INSERT INTO repos (did, active, updated_at) VALUES ($1, $2, now())
		ON CONFLICT (did) DO UPDATE SET active = excluded.active`, did, !hidden)
	return err
}
