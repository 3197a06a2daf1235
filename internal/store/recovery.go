package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A database that was restored, or whose replica took over with the last
// transactions missing, is behind those who learned from it: Elasticsearch, Neo4j,
// kept answers, tasks in Redis, and clients that follow the log of events. It would
// give the versions and numbers of what was lost to other changes, and whoever knows the
// old ones would take the new for them, or refuse them as older. So before anything is
// written, the clock goes on far beyond all that can have been given out.

// recoveryGap is how far: 200 days of 4,000 changes a second. It is a small part of
// versionGap, so that next tables being filled stay ahead.
const recoveryGap = 1 << 36

// Recovery is one place at which the history was cut off. Versions between Reached
// and Resumed, those two not included, are of changes that were lost.
type Recovery struct {
	Reached, Resumed int64
	Reason           string
}

// Lost tells whether a version was given to a change that was lost.
func (r Recovery) Lost(version int64) bool { return r.Reached < version && version < r.Resumed }

// Recover moves the clock beyond all that may have been given out before the database
// was restored. The writer does so by itself where PostgreSQL tells it of another
// server or timeline; this is for what it cannot see, as a volume that was put back
// to a snapshot. It may be called at any time, also while a writer works, and waits for
// its transaction.
func Recover(ctx context.Context, pool *pgxpool.Pool, reason string) (Recovery, error) {
	var found Recovery
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
		found, err = recoverIn(ctx, tx, reason)
		return err
	})
	if err != nil {
		return Recovery{}, fmt.Errorf("resume the history: %w", ended(ctx, err))
	}
	return found, nil
}

func recoverIn(ctx context.Context, tx pgx.Tx, reason string) (Recovery, error) {
	r := Recovery{Reason: reason}
	err := tx.QueryRow(ctx, "UPDATE clock SET version = version + $1 RETURNING version - $1, version", int64(recoveryGap)).Scan(&r.Reached, &r.Resumed)
	if err != nil {
		return r, err
	}
	batch := &pgx.Batch{}
	batch.Queue("INSERT INTO recoveries (reached, resumed, reason) VALUES ($1, $2, $3)", r.Reached, r.Resumed, reason)
	// Whatever was answered before is answered anew: a label may be of the lost history.
	batch.Queue("INSERT INTO changed VALUES ('"+accountsChanged+"', $1) ON CONFLICT (name) DO UPDATE SET version = excluded.version", r.Resumed)
	// Tasks in Redis name rows that are lost, and would delete those that get their numbers.
	for _, table := range []string{"outbox", "sweeps"} {
		batch.Queue("SELECT setval(pg_get_serial_sequence('"+table+"', 'id'), nextval(pg_get_serial_sequence('"+table+"', 'id')) + $1)", int64(recoveryGap))
	}
	return r, tx.SendBatch(ctx, batch).Close()
}

// lineage is which server a database is on, and in which of the lives that recoveries
// have given it. PostgreSQL begins a timeline with each.
type lineage struct{ server, timeline string }

// readLineage asks the server; ok is false where it does not tell, as some that
// are run by others.
func readLineage(ctx context.Context, tx pgx.Tx) (l lineage, ok bool, err error) {
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
		return tx.QueryRow(ctx, "SELECT (SELECT system_identifier::text FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8)").Scan(&l.server, &l.timeline)
	})
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) {
		return l, false, nil
	}
	return l, err == nil, err
}

// followLineage resumes the history if this is not the server and timeline that the
// last writer wrote on.
func (w *Writer) followLineage(ctx context.Context, tx pgx.Tx) error {
	now, ok, err := readLineage(ctx, tx)
	if err != nil {
		return err
	}
	if !ok {
		w.logger.WarnContext(ctx, "PostgreSQL does not tell its timeline: run `layers recover` after it was restored")
		return nil
	}
	var before lineage
	err = tx.QueryRow(ctx, "SELECT server, timeline FROM lineage").Scan(&before.server, &before.timeline)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return err
	case before == now:
		return nil
	default:
		r, err := recoverIn(ctx, tx, fmt.Sprintf("server %s timeline %s, before it %s timeline %s", now.server, now.timeline, before.server, before.timeline))
		if err != nil {
			return err
		}
		w.logger.WarnContext(ctx, "PostgreSQL was restored or failed over: versions go on beyond those that may be lost",
			"reached", r.Reached, "resumed", r.Resumed, "timeline", now.timeline, "timeline_before", before.timeline)
	}
	_, err = tx.Exec(ctx, "INSERT INTO lineage (server, timeline) VALUES ($1, $2) ON CONFLICT (single) DO UPDATE SET server = excluded.server, timeline = excluded.timeline",
		now.server, now.timeline)
	return err
}

// History is what the database knows of its own past.
type History struct {
	Clock      int64 // the last version given out
	Recoveries []Recovery
}

// History reads the recoveries there were, and the clock.
func (r *Reader) History(ctx context.Context) (h History, err error) {
	if err := r.pool.QueryRow(ctx, "SELECT version FROM clock").Scan(&h.Clock); err != nil {
		return h, fmt.Errorf("read the clock: %w", ended(ctx, err))
	}
	h.Recoveries, err = collect(ctx, r.pool, pgx.RowToStructByPos[Recovery], "SELECT reached, resumed, reason FROM recoveries ORDER BY resumed")
	if err != nil {
		return h, fmt.Errorf("read the recoveries: %w", err)
	}
	return h, nil
}

// Knows tells whether a version may have been given out in this history: not to a
// change that was lost, and not later than now.
func (h History) Knows(version int64) bool {
	for _, r := range h.Recoveries {
		if r.Lost(version) {
			return false
		}
	}
	return version <= h.Clock
}
