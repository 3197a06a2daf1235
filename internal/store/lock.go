package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writerLock is the advisory lock of a database's one writer.
const writerLock int64 = 0x6c61796572730002

// lockNumber is the lock's number in SQL. Tables in a schema of their own have a
// writer of their own.
const lockNumber = "CASE current_schema() WHEN 'public' THEN $1::bigint ELSE hashtextextended(current_schema(), $1::bigint) END"

const (
	lockPoll      = time.Second     // between two tries to get the lock
	pingEvery     = 2 * time.Second // while no transaction shows that the session lives
	pingTimeout   = 5 * time.Second
	closeTimeout  = 5 * time.Second
	rollbackGrace = 5 * time.Second
)

// session is the connection that holds the lock. All that the writer writes goes
// through it, so a transaction can commit only while the lock is held: both end
// with the connection.
type session struct {
	mu   sync.Mutex // held while the connection is in use
	conn *pgx.Conn
	// clock is which table that is: another one after a [Succession], whose writer has
	// to begin anew.
	clock uint32
	lost  chan struct{}
	once  sync.Once
}

// Lock waits until this process is the database's one writer, however long that
// takes; a server that does not answer is waited for too. lost is closed when the
// lock is gone without a release, seconds after the connection broke. release
// gives the lock back and is to be called in any case.
func (w *Writer) Lock(ctx context.Context) (release func(), lost <-chan struct{}, err error) {
	s, err := w.acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := w.route(ctx, s); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	w.mu.Lock()
	w.session = s
	w.mu.Unlock()

	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(stop) })
	release = sync.OnceFunc(func() {
		close(stop)
		watch.Wait()
		w.mu.Lock()
		if w.session == s {
			w.session = nil
		}
		w.mu.Unlock()
		if err := s.close(); err != nil {
			w.logger.Warn("closing the writer's session failed; the server ends it", "error", err)
		}
	})
	return release, s.lost, nil
}

// acquire polls for the lock. Waiting inside pg_advisory_lock instead would hold a
// snapshot for as long, and keep vacuum from every table of the database.
func (w *Writer) acquire(ctx context.Context) (*session, error) {
	var conn *pgx.Conn
	waiting := ""
	for {
		held, clock, err := false, uint32(0), error(nil)
		if conn == nil {
			conn, err = w.connect(ctx)
		}
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock("+lockNumber+"), coalesce(to_regclass('clock')::oid, 0)", writerLock).Scan(&held, &clock)
		}
		switch {
		case held:
			return &session{conn: conn, clock: clock, lost: make(chan struct{})}, nil
		case ctx.Err() != nil || err != nil && !passing(err):
			return nil, errors.Join(fmt.Errorf("take the writer's lock: %w", errors.Join(err, ctx.Err())), closeConn(conn))
		case err != nil:
			_ = closeConn(conn) // broken already
			conn = nil
			w.wait(ctx, &waiting, "PostgreSQL does not answer, waiting for it", "error", err)
		default:
			w.wait(ctx, &waiting, "another process is the writer, waiting for its lock")
		}
	}
}

// wait pauses before the next try, and says once why.
func (w *Writer) wait(ctx context.Context, said *string, why string, attrs ...any) {
	if *said != why {
		*said = why
		w.logger.InfoContext(ctx, "standing by", append([]any{"why", why}, attrs...)...)
	}
	select {
	case <-ctx.Done():
	case <-time.After(lockPoll):
	}
}

// passing tells the errors of a server that is away, starting, stopping or full
// from those that waiting does not mend.
func passing(err error) bool {
	var refusal *pgconn.PgError
	if !errors.As(err, &refusal) {
		return true // the network's
	}
	return strings.HasPrefix(refusal.Code, "57P") || strings.HasPrefix(refusal.Code, "08") || strings.HasPrefix(refusal.Code, "53")
}

// connect opens the writer's session.
func (w *Writer) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := w.pool.Config().ConnConfig.Copy()
	params := cfg.RuntimeParams
	params["application_name"] = strings.TrimSpace(params["application_name"] + " writer")
	// A machine that vanishes says no goodbye: the server has to find out by itself
	// before another can take over.
	params["tcp_keepalives_idle"] = "15"
	params["tcp_keepalives_interval"] = "5"
	params["tcp_keepalives_count"] = "3"
	params["tcp_user_timeout"] = "30000"
	params["idle_in_transaction_session_timeout"] = "60000"
	// Tables grow a thousandfold while the session lives. A plan that was made when
	// they were empty must not be kept. All that is asked for is found by an index, in
	// the index's order, so what pays for large scans can only do harm: compiling
	// statements, and collecting everything that refers to a record to sort it.
	params["plan_cache_mode"] = "force_custom_plan"
	params["jit"] = "off"
	params["enable_bitmapscan"] = "off"
	return pgx.ConnectConfig(ctx, cfg)
}

// route makes the writer's routes those of the database. Rows of a projection that
// is gone go too; a projection that is new for a collection is given all of it.
func (w *Writer) route(ctx context.Context, s *session) error {
	var collections, targets []string
	for collection, to := range w.routes {
		for _, target := range to {
			collections, targets = append(collections, string(collection)), append(targets, string(target))
		}
	}
	batch := &pgx.Batch{}
	batch.Queue("DELETE FROM routes WHERE (collection, target) NOT IN (SELECT * FROM unnest($1::text[], $2::text[]))", collections, targets)
	batch.Queue(`
		WITH added AS (
			INSERT INTO routes (collection, target) SELECT * FROM unnest($1::text[], $2::text[])
			ON CONFLICT DO NOTHING RETURNING collection, target)
		INSERT INTO sweeps (version, target, collection)
		SELECT version, target, collection FROM added, clock
		WHERE EXISTS (SELECT FROM records r WHERE r.collection = added.collection)`, collections, targets)
	batch.Queue("DELETE FROM outbox WHERE target <> ALL ($1::text[]) AND target NOT IN (SELECT target || '+' FROM rebuilds)", targets)
	batch.Queue("DELETE FROM sweeps WHERE target <> ALL ($1::text[]) AND target NOT IN (SELECT target || '+' FROM rebuilds)", targets)
	w.queueRecording(batch)
	err := s.transact(ctx, func(tx pgx.Tx) error {
		// First of all: what is enqueued here has versions.
		if err := w.followLineage(ctx, tx); err != nil {
			return fmt.Errorf("look whether the database was restored: %w", err)
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("set the routes of the outbox: %w", err)
	}
	return nil
}

// watch asks the connection at intervals whether it lives, unless a transaction
// is showing that just now.
func (s *session) watch(stop <-chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-s.lost:
			return
		case <-tick.C:
			if s.mu.TryLock() {
				ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
				_ = s.check(s.conn.Ping(ctx)) // the loss is noted, and there is nobody else to tell
				cancel()
				s.mu.Unlock()
			}
		}
	}
}

// check notes the loss of the lock, and hands on the error as what it means.
func (s *session) check(err error) error {
	if errors.Is(err, ErrLockLost) {
		s.once.Do(func() { close(s.lost) })
		return err
	}
	if err == nil || !s.conn.IsClosed() {
		return err
	}
	s.once.Do(func() { close(s.lost) })
	return fmt.Errorf("%w: %w", ErrLockLost, err)
}

// transact runs do in a transaction of the session.
func (s *session) transact(ctx context.Context, do func(pgx.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.IsClosed() {
		return s.check(ErrLockLost)
	}
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return s.check(fmt.Errorf("begin: %w", err))
	}
	if err := do(tx); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackGrace)
		defer cancel()
		return s.check(errors.Join(err, tx.Rollback(undo)))
	}
	if err := tx.Commit(ctx); err != nil {
		return s.check(fmt.Errorf("commit: %w", err))
	}
	return nil
}

func (s *session) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return closeConn(s.conn)
}

func closeConn(conn *pgx.Conn) error {
	if conn == nil || conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return conn.Close(ctx)
}
