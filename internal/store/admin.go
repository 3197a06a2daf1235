package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// AdminAction is something that an operator did, or tried to do.
type AdminAction struct {
	ID        int64     // set by the store
	At        time.Time // set by the store
	Actor     string    // a DID, or a name
	Via       string    // ViaHTTP or ViaCommand
	Action    string    // such as dlq.replay
	Subject   string    // what it was done to
	Outcome   Outcome
	Detail    string // what came of it
	RequestID string // the same in all that belongs to one request or command
}

// Ways by which operators act.
const (
	ViaHTTP    = "http"
	ViaCommand = "cli"
)

// Outcome is what became of an action.
type Outcome string

// Outcomes. What takes long is noted when it begins, and once more when it has ended.
const (
	Begun   Outcome = "begun"
	Done    Outcome = "done"
	Failed  Outcome = "failed"
	Refused Outcome = "refused"
)

// AdminLog keeps what operators did. Nothing in it can be changed.
type AdminLog struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
}

// NewAdminLog takes a pool that may write. What is kept is also logged.
func NewAdminLog(pool *pgxpool.Pool, logger *slog.Logger) *AdminLog {
	return &AdminLog{pool: pool, logger: logger}
}

// Within carries an action out in one transaction with the note of it: neither is there
// without the other. do returns what came of it. If it fails, that is noted.
func (l *AdminLog) Within(ctx context.Context, a AdminAction, do func(pgx.Tx) (detail string, err error)) error {
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		detail, err := do(tx)
		if err != nil {
			return err
		}
		a.Outcome, a.Detail = Done, detail
		return insertAction(ctx, tx, a)
	})
	if err != nil {
		a.Outcome, a.Detail = Failed, err.Error()
		return errors.Join(ended(ctx, err), l.Note(context.WithoutCancel(ctx), a))
	}
	l.log(ctx, a)
	return nil
}

// noteTime bounds a note of something that has happened already.
const noteTime = 5 * time.Second

// Note keeps an action that is no transaction.
func (l *AdminLog) Note(ctx context.Context, a AdminAction) error {
	l.log(ctx, a)
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	return insertAction(ctx, l.pool, a)
}

func (l *AdminLog) log(ctx context.Context, a AdminAction) {
	l.logger.InfoContext(ctx, "operator's action", "actor", a.Actor, "via", a.Via, "action", a.Action, "subject", a.Subject,
		"outcome", a.Outcome, "detail", a.Detail, "requestId", a.RequestID)
}

func insertAction(ctx context.Context, to database, a AdminAction) error {
	_, err := to.Exec(ctx, `INSERT INTO admin_actions (actor, via, action, subject, outcome, detail, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		text(a.Actor), text(a.Via), text(a.Action), text(a.Subject), text(a.Outcome), text(a.Detail), text(a.RequestID))
	if err != nil {
		return fmt.Errorf("note the operator's action: %w", ended(ctx, err))
	}
	return nil
}

// AdminFilter picks actions; what is empty matches all.
type AdminFilter struct{ Actor, Action, RequestID string }

// List returns actions, the newest first: up to limit with an ID below before, or from
// the newest on if that is 0.
func (l *AdminLog) List(ctx context.Context, f AdminFilter, before int64, limit int) ([]AdminAction, error) {
	actions, err := collect(ctx, l.pool, pgx.RowToStructByPos[AdminAction], `
		SELECT id, at, actor, via, action, subject, outcome, detail, request_id FROM admin_actions
		WHERE ($1 = '' OR actor = $1) AND ($2 = '' OR action = $2) AND ($3 = '' OR request_id = $3) AND ($4::bigint = 0 OR id < $4)
		ORDER BY id DESC LIMIT $5`, f.Actor, f.Action, f.RequestID, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list operators' actions: %w", err)
	}
	return actions, nil
}

// Spend notes that a token is used, and tells whether it had not been before, by any
// process. It is remembered until it expires.
func (l *AdminLog) Spend(ctx context.Context, token string, expires time.Time) (fresh bool, err error) {
	hash := sha256.Sum256([]byte(token))
	err = l.pool.QueryRow(ctx, `
		WITH expired AS (DELETE FROM admin_tokens WHERE expires_at < now()),
			spent AS (INSERT INTO admin_tokens (hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING hash)
		SELECT EXISTS (SELECT FROM spent)`, hash[:], expires).Scan(&fresh)
	if err != nil {
		return false, fmt.Errorf("note that a token is used: %w", ended(ctx, err))
	}
	return fresh, nil
}
