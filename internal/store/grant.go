package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ReaderRole is the role that may only SELECT. [Migrate] makes it; the login of an
// API replica should be a member of it and have no other rights.
const ReaderRole = "layers_reader"

// grantReader makes the role that may only SELECT, and lets it read every table
// there is. Where this login may not make roles and nobody has made it, the migration
// goes on without.
func grantReader(ctx context.Context, conn *pgx.Conn, role string, logger *slog.Logger) error {
	err := createReader(ctx, conn, role)
	if notPermitted(err) {
		logger.WarnContext(ctx, "this login may not make roles: until somebody who may has run the statement, and this migration is run again, "+
			"the API has no role of its own that can only read", "statement", "CREATE ROLE "+role+" NOLOGIN", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the role %s: %w", role, err)
	}
	if _, err := conn.Exec(ctx, strings.ReplaceAll(grantReads, "READER", role)); err != nil {
		return fmt.Errorf("grant SELECT to %s: %w", role, err)
	}
	return joinReader(ctx, conn, role, logger)
}

// grantReads grants what is this program's alone, since a schema may hold what others
// own. What operators did is for operators.
const grantReads = `DO $$ DECLARE statement text; BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA %I TO READER', current_schema());
	FOR statement IN
		SELECT format('GRANT SELECT ON %s TO READER', oid::regclass) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
			AND pg_has_role(relowner, 'USAGE') AND NOT has_table_privilege('READER', oid, 'SELECT') AND relname NOT LIKE 'admin\_%'
	LOOP EXECUTE statement; END LOOP;
END $$`

// createReader makes the role. Roles belong to the whole server, so a migration of
// another database may do the same just now.
func createReader(ctx context.Context, conn *pgx.Conn, role string) error {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE ROLE "+role+" NOLOGIN")
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && (refusal.Code == codeDuplicateObject || refusal.Code == codeUniqueViolation) {
		return nil
	}
	return err
}

// joinReader lets the present login take the role, so that an API which connects with
// the same login drops its other rights.
func joinReader(ctx context.Context, conn *pgx.Conn, role string, logger *slog.Logger) error {
	var member bool // as every superuser is of every role
	err := conn.QueryRow(ctx, "SELECT pg_has_role($1, 'USAGE')", role).Scan(&member)
	if err == nil && !member {
		_, err = conn.Exec(ctx, "GRANT "+role+" TO CURRENT_USER")
	}
	if notPermitted(err) {
		logger.DebugContext(ctx, "this login cannot take the reader's role: give the API another one", "role", role)
		return nil
	}
	if err != nil {
		return fmt.Errorf("take the role %s: %w", role, err)
	}
	return nil
}

func notPermitted(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && refusal.Code == codeNotPermitted
}

// MayWrite tells whether the login of a pool could change records if it wanted to,
// whatever role it has taken.
func MayWrite(ctx context.Context, pool *pgxpool.Pool) (may bool, err error) {
	err = pool.QueryRow(ctx, "SELECT coalesce(has_table_privilege(session_user, to_regclass('records'), 'INSERT, UPDATE, DELETE'), false)").Scan(&may)
	if err != nil {
		return false, fmt.Errorf("look up what the login may do: %w", ended(ctx, err))
	}
	return may, nil
}
