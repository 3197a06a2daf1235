package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// cursor is how far the stream of a host has been applied; 0 before its first event.
func (m *measurement) cursor(ctx context.Context, host string) (seq int64, err error) {
	err = m.Database.QueryRow(ctx, "SELECT seq FROM cursor WHERE host = $1", host).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return seq, err
}

// check makes sure that what was measured is right: as many records as the stream
// leaves, and no dead letter.
func (m *measurement) check(ctx context.Context, present int) error {
	var records, letters int
	var reason string
	err := m.Database.QueryRow(ctx, `SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM dead_letters),
		coalesce((SELECT stage || ': ' || reason FROM dead_letters LIMIT 1), '')`).Scan(&records, &letters, &reason)
	if err != nil {
		return fmt.Errorf("count what was indexed: %w", err)
	}
	if records != present || letters != 0 {
		return fmt.Errorf("%d records and %d dead letters were indexed, expected %d and none %s", records, letters, present, cmp.Or(reason, ""))
	}
	return nil
}
