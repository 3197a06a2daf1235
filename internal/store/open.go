package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says how to reach PostgreSQL.
type Config struct {
	// URL is a connection string, postgres://user:password@host:port/database. The
	// writer needs a session of its own: no transaction pooler in between.
	URL string
	// MaxConns bounds the pool; 0 leaves it to the URL's pool_max_conns, or 4 or
	// the number of CPUs, whichever is greater.
	MaxConns int32
	// ReadOnly makes every transaction of the pool read-only and drops the login's
	// rights to those of [ReaderRole] where it is a member.
	ReadOnly bool
	// StatementTime ends any statement that takes longer, also one whose client is gone
	// without a word; 0 for none.
	StatementTime time.Duration
	// Name is shown as application_name in pg_stat_activity.
	Name string
}

// Open connects to PostgreSQL and makes sure that it answers. A query whose context
// ends is cancelled in the server too, and its connection is kept.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	}
	if cfg.Name != "" {
		pc.ConnConfig.RuntimeParams["application_name"] = cfg.Name
	}
	if cfg.StatementTime > 0 {
		pc.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(cfg.StatementTime.Milliseconds(), 10)
	}
	pc.ConnConfig.Tracer = observer{}
	pc.ConnConfig.BuildContextWatcherHandler = cancelInServer
	if cfg.ReadOnly {
		pc.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
		pc.AfterConnect = becomeReader
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("make a connection pool: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return pool, nil
}

// cancelGrace is how long a server has to end a cancelled query before the
// connection is given up.
var cancelGrace = time.Second

func cancelInServer(conn *pgconn.PgConn) ctxwatch.Handler {
	return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelGrace}
}

// becomeReader takes the reader's role. A login that may not keeps its own rights;
// its transactions are read-only all the same.
func becomeReader(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET ROLE "+ReaderRole)
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && (refusal.Code == codeNoSuchRole || refusal.Code == codeNotPermitted) {
		return nil
	}
	return err
}

// SQLSTATEs by which we decide.
const (
	codeNoSuchRole      = "22023"
	codeNotPermitted    = "42501"
	codeDuplicateObject = "42710"
	codeUniqueViolation = "23505"
)
