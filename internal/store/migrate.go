package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrateLock is the advisory lock that lets one process migrate at a time.
const migrateLock int64 = 0x6c61796572730001

// Migrate brings the database to this program's schema, and gives each collection
// its partition and indexes. It is idempotent, several processes may call it at
// once, and it leaves the data alone but for rows of a collection that had no
// partition: those move into it. An index on a large partition is built under a
// lock that makes writers wait.
func Migrate(ctx context.Context, url string, partitions []Partition, logger *slog.Logger) error {
	return migrating(ctx, url, func(conn *pgx.Conn, provider *goose.Provider) error {
		applied, err := provider.Up(ctx)
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		for _, m := range applied {
			logger.InfoContext(ctx, "migrated", "migration", m.Source.Path, "took", m.Duration)
		}
		for _, p := range partitions {
			if err := p.ensure(ctx, conn); err != nil {
				return fmt.Errorf("partition of %s: %w", p.Collection, err)
			}
		}
		return grantReader(ctx, conn, ReaderRole, logger)
	})
}

// MigrateDown takes the schema back to a version, 0 for none at all, and the data
// with it. The reader's role stays, since other databases of the server may use it.
func MigrateDown(ctx context.Context, url string, version int64) error {
	return migrating(ctx, url, func(_ *pgx.Conn, provider *goose.Provider) error {
		if _, err := provider.DownTo(ctx, version); err != nil {
			return fmt.Errorf("migrate down to version %d: %w", version, err)
		}
		return nil
	})
}

// migrating runs do while holding the lock.
func migrating(ctx context.Context, url string, do func(*pgx.Conn, *goose.Provider) error) (err error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse the database URL: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", migrateLock); err != nil {
		return fmt.Errorf("wait for other migrations: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	return do(conn, provider)
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("open the embedded migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return provider, nil
}
