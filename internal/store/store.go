// Package store keeps the truth in PostgreSQL: the records of the repositories
// that are followed, whom they refer to, the state of each repository, what could
// not be indexed, and how far each host's stream has been applied. It also keeps
// the outbox, which names the records that each projection has yet to catch up
// with, and the read tables that follow inside PostgreSQL itself.
//
// A [Writer] applies a batch of changes in one transaction that holds everything
// they lead to, cursor and outbox included. There is one writer at a time: its
// transactions run on the session that holds the lock. A [Reader] answers what
// the API asks and needs no right but SELECT. An [Outbox] hands its rows out under
// leases, to any number of processes. [Migrate] makes the tables, and for each
// collection a partition with the indexes that its lists need.
package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrNotFound says that there is no such row, or that its repository is
	// inactive. Repeating the question does not help.
	ErrNotFound = errors.New("not found in the store")

	// ErrLockLost says that the writer does not hold the lock, or not any more. What
	// was under way may have been committed or not, and another process may have
	// written since: drop what is cached of the store's state, begin again with
	// [Writer.Lock], and go on from the stored cursor.
	ErrLockLost = errors.New("the writer's lock is not held")

	// ErrRejected says that PostgreSQL refuses what is in the batch, and that
	// nothing was written. Repeating it does not help: apply its events one by
	// one, and give the one at fault to the dead letters.
	ErrRejected = errors.New("PostgreSQL refuses the batch")
)

// TooLong is returned for a name that does not fit into an index. It is an [ErrRejected].
type TooLong struct {
	Name  string // what is too long: DID, collection or record key
	Bytes int
	Most  int
}

func (e *TooLong) Error() string {
	return fmt.Sprintf("%s of %d bytes: at most %d can be stored", e.Name, e.Bytes, e.Most)
}

// Is tells [errors.Is] that it is an [ErrRejected].
func (e *TooLong) Is(target error) bool { return target == ErrRejected }

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// database is a pool or a transaction, to which the same can be done.
type database interface {
	querier
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
}

// collect runs a query and reads all its rows.
func collect[T any](ctx context.Context, from querier, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := from.Query(ctx, sql, args...)
	if err != nil {
		return nil, ended(ctx, err)
	}
	list, err := pgx.CollectRows(rows, scan)
	return list, ended(ctx, err)
}

// Ended adds to an error that the context has ended. PostgreSQL only says that it
// was asked to cancel the query.
func Ended(ctx context.Context, err error) error { return ended(ctx, err) }

func ended(ctx context.Context, err error) error {
	if cause := ctx.Err(); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// Rejected marks PostgreSQL's errors that come from what was sent rather than from
// the server or our own state as [ErrRejected]: class 22 (malformed or out of range)
// and class 54 (exceeds a limit).
func Rejected(err error) error { return rejected(err) }

func rejected(err error) error {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && (refusal.Code[:2] == "22" || refusal.Code[:2] == "54") {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return err
}
