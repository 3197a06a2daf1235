package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// LetterFilter picks dead letters; what is empty matches all.
type LetterFilter struct {
	IDs          []int64
	Stage, Class string
	DID          syntax.DID
	Collection   syntax.NSID
}

// where is the condition on dead_letters of five parameters, which are given by parameters.
const letterFilter = `($1 = '' OR stage = $1) AND ($2 = '' OR class = $2) AND ($4 = '' OR collection = $4)
	AND ($3::text = '' OR hashtextextended(did, 0) = hashtextextended($3::text, 0) AND did = $3)
	AND ($5::bigint[] IS NULL OR id = ANY ($5))`

func (f *LetterFilter) parameters(more ...any) []any {
	return append([]any{planned, f.Stage, f.Class, f.DID, f.Collection, f.IDs}, more...)
}

const letterNames = "id, created_at, host, seq, did, collection, rkey, rev, cid, stage, class, path, reason, expected, received"
const letterColumns = letterNames + ", raw, requested_at IS NOT NULL, attempts, outcome"

func scanLetter(row pgx.CollectableRow) (d DeadLetter, err error) {
	err = row.Scan(&d.ID, &d.CreatedAt, &d.Host, &d.Seq, (*string)(&d.DID), (*string)(&d.Collection), (*string)(&d.Rkey), (*string)(&d.Rev),
		(*string)(&d.CID), &d.Stage, &d.Class, &d.Path, &d.Reason, &d.Expected, &d.Received, &d.Raw, &d.Requested, &d.Attempts, &d.Outcome)
	return d, err
}

// List returns dead letters, the newest first: up to limit with an ID below before,
// or from the newest on if that is 0.
func (l *DeadLetters) List(ctx context.Context, f LetterFilter, before int64, limit int) ([]DeadLetter, error) {
	letters, err := collect(ctx, l.pool, scanLetter, "SELECT "+letterColumns+" FROM dead_letters WHERE "+letterFilter+
		" AND ($6::bigint = 0 OR id < $6) ORDER BY id DESC LIMIT $7", f.parameters(before, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, nil
}

// Count tells how many dead letters there are.
func (l *DeadLetters) Count(ctx context.Context, f LetterFilter) (n int64, err error) {
	err = l.pool.QueryRow(ctx, "SELECT count(*) FROM dead_letters WHERE "+letterFilter, f.parameters()...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", ended(ctx, err))
	}
	return n, nil
}

// CountByStage tells how many dead letters there are of each stage that has any.
func (l *DeadLetters) CountByStage(ctx context.Context) (map[string]int64, error) {
	type count struct {
		Stage string
		N     int64
	}
	counts, err := collect(ctx, l.pool, pgx.RowToStructByPos[count], "SELECT stage, count(*) FROM dead_letters GROUP BY stage")
	if err != nil {
		return nil, fmt.Errorf("count dead letters by stage: %w", err)
	}
	stages := make(map[string]int64, len(counts))
	for _, c := range counts {
		stages[c.Stage] = c.N
	}
	return stages, nil
}

// Get returns one dead letter, or [ErrNotFound].
func (l *DeadLetters) Get(ctx context.Context, id int64) (DeadLetter, error) {
	letters, err := collect(ctx, l.pool, scanLetter, "SELECT "+letterColumns+" FROM dead_letters WHERE id = $1", id)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %d: %w", id, err)
	}
	if len(letters) == 0 {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", id, ErrNotFound)
	}
	return letters[0], nil
}

// Delete removes dead letters and returns how many there were.
func (l *DeadLetters) Delete(ctx context.Context, f LetterFilter) (int64, error) {
	tag, err := l.pool.Exec(ctx, "DELETE FROM dead_letters WHERE "+letterFilter, f.parameters()...)
	if err != nil {
		return 0, fmt.Errorf("delete dead letters: %w", ended(ctx, err))
	}
	return tag.RowsAffected(), nil
}

// Request asks that dead letters be put through again, and returns their IDs in
// order. The running indexer does it; until it has, [DeadLetter.Requested] is set.
// A letter is gone once what it stood for has succeeded or was overtaken.
func (l *DeadLetters) Request(ctx context.Context, f LetterFilter) ([]int64, error) {
	ids, err := collect(ctx, l.pool, pgx.RowTo[int64], `
		WITH asked AS (
			UPDATE dead_letters SET requested_at = coalesce(requested_at, now()), outcome = CASE WHEN requested_at IS NULL THEN '' ELSE outcome END
			WHERE `+letterFilter+` RETURNING id)
		SELECT id FROM asked ORDER BY id`, f.parameters()...)
	if err != nil {
		return nil, fmt.Errorf("request a replay: %w", err)
	}
	return ids, nil
}

// Requested returns the letters, the longest waiting first, that have been asked
// for and not begun. Raw is left out for all but those of the named stage, since
// only that needs it.
func (l *DeadLetters) Requested(ctx context.Context, rawOf string, limit int) ([]DeadLetter, error) {
	letters, err := collect(ctx, l.pool, scanLetter, "SELECT "+letterNames+`, CASE WHEN stage = $1 THEN raw END, true, attempts, outcome
		FROM dead_letters WHERE requested_at IS NOT NULL AND started_at IS NULL ORDER BY requested_at, id LIMIT $2`, planned, rawOf, limit)
	if err != nil {
		return nil, fmt.Errorf("read requested replays: %w", err)
	}
	return letters, nil
}

// Postpone moves requested letters to the end of the queue and says why.
func (l *DeadLetters) Postpone(ctx context.Context, ids []int64, why string) error {
	return l.mark(ctx, "postpone replays", "UPDATE dead_letters SET requested_at = clock_timestamp(), outcome = $2 WHERE id = ANY ($1) AND requested_at IS NOT NULL",
		ids, text(why))
}

// Await notes that what a letter needs has been set going elsewhere.
func (l *DeadLetters) Await(ctx context.Context, id int64, what string) error {
	return l.mark(ctx, "note a replay", "UPDATE dead_letters SET started_at = now(), outcome = $2 WHERE id = $1", id, text(what))
}

// Fail ends a replay that failed. A reason that is not empty takes the place of the
// letter's old one, together with class, path, expected and received.
func (l *DeadLetters) Fail(ctx context.Context, d DeadLetter, outcome string) error {
	return l.mark(ctx, "fail a replay", `UPDATE dead_letters SET requested_at = NULL, started_at = NULL, outbox_id = NULL,
		attempts = attempts + 1, outcome = $2, class = $3, path = $4, reason = $5, expected = $6, received = $7 WHERE id = $1`,
		d.ID, text(outcome), text(d.Class), text(d.Path), text(d.Reason), text(d.Expected), text(d.Received))
}

func (l *DeadLetters) mark(ctx context.Context, doing, statement string, args ...any) error {
	if _, err := l.pool.Exec(ctx, statement, args...); err != nil {
		return fmt.Errorf("%s: %w", doing, ended(ctx, err))
	}
	return nil
}

// Project puts the record of a projection's letter into the outbox once more. ok
// is false if no projection of that name follows the record's collection.
func (l *DeadLetters) Project(ctx context.Context, d DeadLetter, target record.Target) (ok bool, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var row int64
		err := tx.QueryRow(ctx, `
			INSERT INTO outbox (version, target, collection, did, rkey)
			SELECT clock.version, routes.target, routes.collection, $3, $4 FROM clock, routes
			WHERE routes.target = $1 AND routes.collection = $2 RETURNING id`, target, d.Collection, d.DID, d.Rkey).Scan(&row)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE dead_letters SET started_at = now(), outbox_id = $2, outcome = 'being projected' WHERE id = $1", d.ID, row)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("project dead letter %d: %w", d.ID, ended(ctx, err))
	}
	return true, nil
}

// SettleProjected deletes the letters of projections whose outbox row has been
// carried out. Where that failed once more, a worker has said so in the letter
// before it took the row away.
func (l *DeadLetters) SettleProjected(ctx context.Context) (int64, error) {
	tag, err := l.pool.Exec(ctx, `DELETE FROM dead_letters d WHERE requested_at IS NOT NULL AND outbox_id IS NOT NULL
		AND NOT EXISTS (SELECT FROM outbox o WHERE o.id = d.outbox_id)`)
	if err != nil {
		return 0, fmt.Errorf("settle projected dead letters: %w", ended(ctx, err))
	}
	return tag.RowsAffected(), nil
}

// AwaitFetches keeps the letters that wait for their repository in step with the
// list of repositories to fetch: they say what the last attempt failed at, and have
// failed where the repository was given up. The fetch itself removes them.
func (l *DeadLetters) AwaitFetches(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, `
		WITH waiting AS (
			SELECT d.id, r.did IS NULL AS given_up, coalesce(r.error, '') AS error FROM dead_letters d LEFT JOIN resyncs r ON r.did = d.did
			WHERE d.requested_at IS NOT NULL AND d.started_at IS NOT NULL AND d.outbox_id IS NULL)
		UPDATE dead_letters d SET
			outcome = CASE WHEN given_up THEN 'its repository is not fetched any more' ELSE 'its repository could not be fetched yet: ' || error END,
			attempts = attempts + given_up::int,
			requested_at = CASE WHEN NOT given_up THEN requested_at END, started_at = CASE WHEN NOT given_up THEN started_at END
		FROM waiting w WHERE w.id = d.id AND (given_up OR error <> '' AND outcome <> 'its repository could not be fetched yet: ' || error)`)
	if err != nil {
		return fmt.Errorf("look after letters whose repository is fetched: %w", ended(ctx, err))
	}
	return nil
}
