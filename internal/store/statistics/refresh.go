package statistics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// views are refreshed in this order, since later ones read earlier ones.
var views = []string{"annotation_coverage", "label_distribution", "corpus_statistics", "graph_density"}

const (
	lookEvery  = 10 * time.Second // whether a refresh is due; never more often than the interval
	soonest    = 30 * time.Second // after a refresh; sooner than the interval where that costs next to nothing
	costly     = 60               // how many times as long as a refresh takes none is made
	firstRetry = 30 * time.Second
	lastRetry  = 10 * time.Minute
	maxRefresh = time.Hour // after which a refresh is given up
	noteTime   = 10 * time.Second
)

// Refresher keeps the views fresh. Any number may run on one database: one of them at a
// time does the work.
type Refresher struct {
	pool     *pgxpool.Pool
	notes    notes
	interval time.Duration
	logger   *slog.Logger

	// Collections are those that the metrics name; records of others are counted together.
	Collections []syntax.NSID

	shown time.Time // the moment that the metrics of records are of
}

// NewRefresher takes a pool whose login owns the views. Of the pool only the settings
// are used: a refresh has a connection of its own.
func NewRefresher(pool *pgxpool.Pool, notes notes, interval time.Duration, logger *slog.Logger) *Refresher {
	return &Refresher{pool: pool, notes: notes, interval: interval, logger: logger}
}

// Changed is the name under which refreshes are noted for answers that are kept.
const Changed syntax.NSID = "statistics"

// notes are told that the figures are new; *store.Changes is.
type notes interface {
	Note(ctx context.Context, name syntax.NSID) error
}

// Run refreshes the views before they are older than the interval, until ctx ends. A
// refresh that fails is tried again, after waits that grow.
func (r *Refresher) Run(ctx context.Context) error {
	wait := time.Duration(0)
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(lookEvery, r.interval)
		err := r.refreshIfDue(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end was asked for
		case err != nil:
			wait = min(firstRetry<<min(failures, 10), lastRetry)
			failures++
			r.logger.WarnContext(ctx, "refreshing the statistics failed, will try again", "after", wait, "error", err)
		default:
			failures = 0
		}
	}
}

// Refresh brings the views up to date now, after the refresh that may be under way.
func (r *Refresher) Refresh(ctx context.Context) (took time.Duration, err error) {
	took, _, err = r.refresh(ctx, true)
	return took, err
}

// refreshIfDue asks by way of the pool first, which is cheap.
func (r *Refresher) refreshIfDue(ctx context.Context) error {
	state, err := readState(ctx, r.pool)
	if err != nil {
		return err
	}
	if state.RefreshedAt != nil {
		refreshedAt.Set(float64(state.RefreshedAt.Unix()))
		r.show(ctx, *state.RefreshedAt)
		if !r.due(state) {
			return nil
		}
	}
	took, done, err := r.refresh(ctx, false)
	if done {
		r.logger.InfoContext(ctx, "statistics are refreshed", "took", took)
	}
	return err
}

// show takes the metrics of records from the views, once for each moment that they show.
func (r *Refresher) show(ctx context.Context, moment time.Time) {
	if moment.Equal(r.shown) {
		return
	}
	rows, err := r.pool.Query(ctx, "SELECT name, nodes FROM graph_density WHERE graph = 'references' AND NOT whole")
	counts := map[string]float64{}
	for _, c := range r.Collections {
		counts[string(c)] = 0
	}
	if err == nil {
		var name string
		var nodes int64
		_, err = pgx.ForEachRow(rows, []any{&name, &nodes}, func() error {
			if _, known := counts[name]; !known {
				name = "other"
			}
			counts[name] += float64(nodes)
			return nil
		})
	}
	if err != nil { // the next look tries again
		r.logger.DebugContext(ctx, "counting records for the metrics failed", "error", err)
		return
	}
	for name, n := range counts {
		recordsShown.WithLabelValues(name).Set(n)
	}
	r.shown = moment
}

// due tells whether the views are too old: after the interval at the latest, and before
// that for as long as refreshes are cheap, so that a young index does not look empty.
func (r *Refresher) due(s State) bool {
	return s.age >= min(r.interval, max(soonest, costly*s.Took))
}

// refresh does the work; done is false where there was none, or somebody else is at it.
func (r *Refresher) refresh(ctx context.Context, demanded bool) (took time.Duration, done bool, err error) {
	began := time.Now()
	working, cancel := context.WithTimeout(ctx, maxRefresh)
	defer cancel()
	done, err = r.transact(working, demanded)
	took = time.Since(began)
	switch {
	case err != nil:
		refreshes.WithLabelValues("failed").Inc()
		err = fmt.Errorf("refresh the statistics: %w", ended(working, err))
		if ctx.Err() == nil {
			r.note(ctx, err)
		}
	case done:
		refreshes.WithLabelValues("done").Inc()
		refreshSeconds.Observe(took.Seconds())
		refreshedAt.Set(float64(began.Unix()))
		// Not in the transaction, which would hold up the line meanwhile. Who is killed in
		// between leaves answers that say how old they are.
		err = r.notes.Note(ctx, Changed)
	}
	return took, done, err
}

// note keeps a failure where whoever asks for the state sees it.
func (r *Refresher) note(ctx context.Context, failure error) {
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	if _, err := r.pool.Exec(noting, "UPDATE statistics SET failed_at = now(), error = $1", failure.Error()); err != nil {
		r.logger.WarnContext(ctx, "noting that the statistics failed failed", "error", err)
	}
}

const codeLockNotAvailable = "55P03"

// transact refreshes all views in one transaction, of one moment: readers see all of
// them change at once. It has a connection of its own, since it may take long.
func (r *Refresher) transact(ctx context.Context, demanded bool) (done bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, r.pool.Config().ConnConfig)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		// Before the transaction's moment is fixed: whoever has waited sees what was done.
		lock := "LOCK TABLE statistics IN SHARE ROW EXCLUSIVE MODE"
		if !demanded {
			lock += " NOWAIT"
		}
		if _, err := tx.Exec(ctx, lock); err != nil {
			return err
		}
		state, err := readState(ctx, tx)
		if err != nil || !demanded && state.RefreshedAt != nil && !r.due(state) {
			return err
		}
		done = true
		return refreshAll(ctx, tx)
	})
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == codeLockNotAvailable && !demanded {
		return false, nil
	}
	return done && err == nil, err
}

func refreshAll(ctx context.Context, tx pgx.Tx) error {
	// One process of the server, so that the line keeps the others. Records are joined by
	// names that are made up of columns, of which PostgreSQL has no statistics: it takes
	// them to be few, and would then compare all with all.
	for _, setting := range []string{"max_parallel_workers_per_gather = 0", "jit = off", "work_mem = '64MB'", "enable_nestloop = off", "statement_timeout = 0"} {
		if _, err := tx.Exec(ctx, "SET LOCAL "+setting); err != nil {
			return fmt.Errorf("set %s: %w", setting, err)
		}
	}
	for _, view := range views {
		var filled bool
		if err := tx.QueryRow(ctx, "SELECT relispopulated FROM pg_class WHERE oid = to_regclass($1)", view).Scan(&filled); err != nil {
			return fmt.Errorf("look at %s: %w", view, err)
		}
		how := "" // nobody reads a view that is empty
		if filled {
			how = "CONCURRENTLY "
		}
		if _, err := tx.Exec(ctx, "REFRESH MATERIALIZED VIEW "+how+view); err != nil {
			return fmt.Errorf("%s: %w", view, err)
		}
		if _, err := tx.Exec(ctx, "ANALYZE "+view); err != nil {
			return fmt.Errorf("analyze %s: %w", view, err)
		}
	}
	_, err := tx.Exec(ctx, `UPDATE statistics SET refreshed_at = now(), seconds = extract(epoch FROM clock_timestamp() - now()), failed_at = NULL, error = ''`)
	return err
}
