package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// EventLog keeps the log of events within bounds.
type EventLog struct {
	pool *pgxpool.Pool
}

// NewEventLog takes a pool that may write.
func NewEventLog(pool *pgxpool.Pool) *EventLog { return &EventLog{pool: pool} }

// Trim drops the events that are older than keep, and those that more than most changes
// have followed.
func (l *EventLog) Trim(ctx context.Context, keep time.Duration, most int64) error {
	for {
		tag, err := l.pool.Exec(ctx, `
			WITH old AS (
				SELECT version FROM (SELECT version, at FROM events ORDER BY version LIMIT $3) first
				WHERE at < now() - $1::interval OR version < (SELECT max(version) FROM events) - $2),
			gone AS (DELETE FROM events USING old WHERE events.version = old.version RETURNING events.version)
			UPDATE event_log SET after = greatest(after, gone.version) FROM (SELECT max(version) AS version FROM gone) gone
			WHERE gone.version IS NOT NULL`, keep, most, trimAtOnce)
		if err != nil {
			return fmt.Errorf("trim the log of events: %w", ended(ctx, err))
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
	}
}

const trimAtOnce = 1000

// purgeAgain is how long an account's deletion is looked at again: its records go bit
// by bit, each with an event.
const purgeAgain = 10 * time.Minute

// Purge drops the events of the records of accounts that were deleted lately. That
// they were deleted stays in the log.
func (l *EventLog) Purge(ctx context.Context) error {
	var begun time.Time
	var dids []syntax.DID
	err := l.pool.QueryRow(ctx, `
		SELECT now(), array(SELECT did FROM repos, event_log WHERE NOT active AND status = '`+StatusDeleted+`' AND updated_at > purged_at - $1::interval)`,
		purgeAgain).Scan(&begun, &dids)
	if err != nil {
		return fmt.Errorf("read which accounts were deleted: %w", ended(ctx, err))
	}
	for _, did := range dids {
		if _, err := l.forget(ctx, did, true); err != nil {
			return err
		}
	}
	if _, err := l.pool.Exec(ctx, "UPDATE event_log SET purged_at = $1", begun); err != nil {
		return fmt.Errorf("note that deleted accounts are purged from the log: %w", ended(ctx, err))
	}
	return nil
}

// Count counts the events of a repository's records.
func (l *EventLog) Count(ctx context.Context, did syntax.DID) (int, error) {
	return l.forget(ctx, did, false)
}

// forget finds the events of a repository's records, and drops them if told to.
func (l *EventLog) forget(ctx context.Context, did syntax.DID, drop bool) (found int, err error) {
	type packed struct {
		Version int64
		Content []byte
	}
	for after := int64(0); ; {
		rows, err := collect(ctx, l.pool, pgx.RowToStructByPos[packed],
			"SELECT version, content FROM events WHERE version > $2 AND position($1::bytea IN content) > 0 ORDER BY version LIMIT 100", []byte(did), after)
		if err != nil {
			return found, fmt.Errorf("look for events of %s: %w", did, err)
		}
		for _, row := range rows {
			events, err := decodeEvents(row.Content)
			if err != nil {
				return found, fmt.Errorf("read the events of version %d: %w", row.Version, err)
			}
			n := len(events)
			events = slices.DeleteFunc(events, func(e loggedEvent) bool { return e.key.DID == did && e.key.Collection != "" })
			found += n - len(events)
			if drop && len(events) < n {
				// The row stays: it is where the log has come to.
				_, err = l.pool.Exec(ctx, "UPDATE events SET changes = $2, content = $3 WHERE version = $1", row.Version, len(events), encodeEvents(events))
			}
			if err != nil {
				return found, fmt.Errorf("drop events of %s: %w", did, ended(ctx, err))
			}
		}
		if len(rows) == 0 {
			return found, nil
		}
		after = rows[len(rows)-1].Version
	}
}
