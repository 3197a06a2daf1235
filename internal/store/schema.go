package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
)

// ErrOldSchema is wrapped by [CheckSchema] where migrations are still to be applied.
var ErrOldSchema = errors.New("the database has an older schema than this program")

const codeNoSuchTable = "42P01"

// CheckSchema tells whether all migrations of this program have been applied. A newer
// schema is fine: each migration leaves what the release before it reads.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool) error {
	wanted, err := newestMigration()
	if err != nil {
		return err
	}
	var applied int64
	err = pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&applied)
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal) && refusal.Code == codeNoSuchTable:
		return fmt.Errorf("%w: it has none", ErrOldSchema)
	case err != nil:
		return fmt.Errorf("look up the schema's version: %w", ended(ctx, err))
	case applied < wanted:
		return fmt.Errorf("%w: migration %d of %d", ErrOldSchema, applied, wanted)
	}
	return nil
}

// newestMigration is the number of the last migration that is embedded.
func newestMigration() (newest int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, fmt.Errorf("list the embedded migrations: %w", err)
	}
	for _, file := range files {
		number, err := goose.NumericComponent(file)
		if err != nil {
			return 0, fmt.Errorf("number of migration %s: %w", file, err)
		}
		newest = max(newest, number)
	}
	return newest, nil
}
