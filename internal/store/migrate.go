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
	"github.com/jackc/pgx/v5/pgconn"
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
		return grantReader(ctx, conn, logger)
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

// grantReader makes the role that may only SELECT, and lets it read every table
// there is. A login without the right to make roles leaves that to the operator.
func grantReader(ctx context.Context, conn *pgx.Conn, logger *slog.Logger) error {
	if err := createReader(ctx, conn); err != nil {
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) && refusal.Code == codeNotPermitted {
			logger.WarnContext(ctx, "this login may not make roles: the API has no role of its own that can only read",
				"role", ReaderRole, "error", err)
			return nil
		}
		return fmt.Errorf("make the role %s: %w", ReaderRole, err)
	}
	_, err := conn.Exec(ctx, `
		DO $$ BEGIN
			EXECUTE format('GRANT USAGE ON SCHEMA %I TO layers_reader', current_schema());
			EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO layers_reader', current_schema());
		END $$`)
	if err != nil {
		return fmt.Errorf("grant SELECT to %s: %w", ReaderRole, err)
	}
	return nil
}

// createReader makes the role and lets the present login take it. Roles belong to
// the whole server, so a migration of another database may do the same just now.
func createReader(ctx context.Context, conn *pgx.Conn) error {
	var exists, member bool
	const look = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
		EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND pg_has_role(oid, 'MEMBER'))`
	if err := conn.QueryRow(ctx, look, ReaderRole).Scan(&exists, &member); err != nil {
		return err
	}
	if !exists {
		_, err := conn.Exec(ctx, "CREATE ROLE "+ReaderRole+" NOLOGIN")
		var refusal *pgconn.PgError
		raced := errors.As(err, &refusal) && (refusal.Code == codeDuplicateObject || refusal.Code == codeUniqueViolation)
		if err != nil && !raced {
			return err
		}
		if err := conn.QueryRow(ctx, look, ReaderRole).Scan(&exists, &member); err != nil {
			return err
		}
	}
	if member { // as every superuser is of every role
		return nil
	}
	_, err := conn.Exec(ctx, "GRANT "+ReaderRole+" TO CURRENT_USER")
	return err
}
