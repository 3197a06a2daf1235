package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A succession fills fresh tables in a schema of their own, beside the served ones,
// and puts them in those ones' place at once. The names of the schemas change, not
// the tables, so that nobody who reads has to wait.
const (
	nextSchema = "layers_next"
	oldSchema  = "layers_old"
)

// versionGap is how far above the served clock that of the next tables begins: what
// they have that differs has a higher version than anything that was ever projected.
const versionGap = 1 << 40

// Succession is the way from the served tables to fresh ones.
type Succession struct {
	pool   *pgxpool.Pool
	schema string // of the served tables
}

// NewSuccession takes a pool on the served tables, whose login owns them.
func NewSuccession(ctx context.Context, pool *pgxpool.Pool) (*Succession, error) {
	s := &Succession{pool: pool}
	if err := pool.QueryRow(ctx, "SELECT current_schema()").Scan(&s.schema); err != nil {
		return nil, fmt.Errorf("find the served schema: %w", ended(ctx, err))
	}
	if s.schema == nextSchema {
		return nil, errors.New("the database URL names the schema of the next tables")
	}
	return s, nil
}

// NextURL is the URL under which the next tables are filled like any others.
func NextURL(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("parse the database URL: %w", err)
	}
	query := u.Query()
	query.Set("search_path", nextSchema)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// Begin makes the next schema, or finds the one that an earlier run has left. It is
// to be migrated then, and after that [Succession.Raise] called.
func (s *Succession) Begin(ctx context.Context) (resumed bool, err error) {
	err = s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", nextSchema).Scan(&resumed)
	if err == nil && !resumed {
		_, err = s.pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+nextSchema)
	}
	if err != nil {
		return false, fmt.Errorf("make the schema of the next tables: %w", ended(ctx, err))
	}
	return resumed, nil
}

// Raise sets the clock of the next tables far above the served one, once.
func (s *Succession) Raise(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, s.sql(`
		CREATE TABLE IF NOT EXISTS NEXT.succession (base bigint NOT NULL);
		WITH raised AS (
			INSERT INTO NEXT.succession SELECT version + `+fmt.Sprint(versionGap)+` FROM NOW.clock WHERE NOT EXISTS (SELECT FROM NEXT.succession)
			RETURNING base)
		UPDATE NEXT.clock SET version = base FROM raised`))
	if err != nil {
		return fmt.Errorf("raise the clock of the next tables: %w", ended(ctx, err))
	}
	return nil
}

// sql puts the names of the schemas in.
func (s *Succession) sql(text string) string {
	return strings.NewReplacer("NEXT.", nextSchema+".", "NOW.", pgx.Identifier{s.schema}.Sanitize()+".").Replace(text)
}

// Align gives records that are the same on both sides the served one's version and
// its place in lists. It may be repeated.
func (s *Succession) Align(ctx context.Context, collections []syntax.NSID) error {
	for _, collection := range collections {
		if _, err := s.pool.Exec(ctx, s.sql(align)+" AND n.collection = "+quote(string(collection))+" AND o.collection = "+quote(string(collection))); err != nil {
			return fmt.Errorf("align %s: %w", collection, ended(ctx, err))
		}
	}
	return nil
}

const align = `
	UPDATE NEXT.records n SET version = o.version, indexed_at = o.indexed_at, sort_key = o.sort_key
	FROM NOW.records o, NEXT.succession
	WHERE n.collection = o.collection AND n.did = o.did AND n.rkey = o.rkey AND n.cid = o.cid AND n.value::text = o.value::text AND n.version > base`

// Comparison is how the next tables differ from the served ones.
type Comparison struct {
	Served, Next                  int64 // records
	Missing, Added, Changed       int64 // records that are only served, only in the next tables, different
	Repos, NextRepos, BehindRepos int64 // the last: in the next tables at a lower rev, or not at all
	DifferingRepos                int64 // at the same rev with another tree
}

// Compare counts the differences.
func (s *Succession) Compare(ctx context.Context) (c Comparison, err error) {
	err = s.pool.QueryRow(ctx, s.sql(`
		SELECT count(o.cid), count(n.cid), count(*) FILTER (WHERE n.cid IS NULL), count(*) FILTER (WHERE o.cid IS NULL), count(*) FILTER (WHERE o.cid <> n.cid OR o.value::text <> n.value::text)
		FROM NOW.records o FULL JOIN NEXT.records n USING (collection, did, rkey)`)).
		Scan(&c.Served, &c.Next, &c.Missing, &c.Added, &c.Changed)
	if err == nil {
		err = s.pool.QueryRow(ctx, s.sql(`
			SELECT count(o.did), count(n.did), count(*) FILTER (WHERE o.active AND (n.did IS NULL OR n.rev < o.rev)),
				count(*) FILTER (WHERE n.rev = o.rev AND n.data_cid <> o.data_cid)
			FROM NOW.repos o FULL JOIN NEXT.repos n USING (did)`)).Scan(&c.Repos, &c.NextRepos, &c.BehindRepos, &c.DifferingRepos)
	}
	if err != nil {
		return c, fmt.Errorf("compare the next tables with the served ones: %w", ended(ctx, err))
	}
	return c, nil
}

// errSucceeded tells a writer to begin anew.
var errSucceeded = fmt.Errorf("%w: other tables have taken the place of these", ErrLockLost)

// ErrBehind is returned by [Succession.Switch] while the next tables have not come as
// far as the served ones, or somebody holds a lock: try again.
var ErrBehind = errors.New("the next tables are not as far as the served ones")

// Switch puts the next tables in the place of the served ones, in one transaction:
// whoever reads sees the one or the other. The writer of the served tables loses its
// lock and begins anew on the next ones, at their cursors. What differs, and what is
// gone, has outbox rows then; what had some already keeps them.
func (s *Succession) Switch(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, statement := range s.steps() {
			if _, err := tx.Exec(ctx, s.sql(statement), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return nil
	})
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && (refusal.Code == codeLockTimeout || refusal.Code == codeBehind || refusal.Code == codeDeadlock) {
		return fmt.Errorf("%w: %s", ErrBehind, refusal.Message)
	}
	if err != nil {
		return fmt.Errorf("switch to the next tables: %w", ended(ctx, err))
	}
	return nil
}

const (
	codeLockTimeout = "55P03"
	codeDeadlock    = "40P01"
	codeBehind      = "LY001" // raised below
)

// steps are what a switch does. Both clocks are held from the beginning, so that
// neither writer is in the middle of a transaction.
func (s *Succession) steps() []string {
	return []string{
		"SET LOCAL lock_timeout = '2s'",
		"SELECT FROM NOW.clock FOR UPDATE",
		"SELECT FROM NEXT.clock FOR UPDATE",
		`DO $$ BEGIN
			IF EXISTS (SELECT FROM NOW.cursor o JOIN NEXT.cursor n USING (host) WHERE n.seq < o.seq) OR NOT EXISTS (SELECT FROM NEXT.cursor)
				OR EXISTS (SELECT FROM NOW.cursor) AND NOT EXISTS (SELECT FROM NOW.cursor JOIN NEXT.cursor USING (host)) THEN
				RAISE 'the stream has not been applied as far' USING ERRCODE = '` + codeBehind + `';
			END IF;
			IF EXISTS (SELECT FROM NEXT.resyncs WHERE attempts = 0) THEN
				RAISE 'repositories are yet to be fetched' USING ERRCODE = '` + codeBehind + `';
			END IF;
			IF EXISTS (SELECT FROM NOW.rebuilds) THEN
				RAISE 'a projection is being rebuilt: end that first';
			END IF;
			IF EXISTS (SELECT FROM NOW.clock, NEXT.succession WHERE version >= base) THEN
				RAISE 'the served clock has overtaken that of the next tables: begin anew';
			END IF;
		END $$`,
		align,
		// Accounts that cannot be fetched at present are still known.
		`INSERT INTO NEXT.resyncs (did, reason, asked)
			SELECT did, 'was not active when everything was fetched anew', true FROM NOW.repos o
			WHERE NOT active AND status <> 'deleted' AND NOT EXISTS (SELECT FROM NEXT.repos n WHERE n.did = o.did) ON CONFLICT DO NOTHING`,
		`INSERT INTO NEXT.repos (did, handle, pds, active, status, account_host, account_seq, account_time, sync, complete, updated_at)
			SELECT did, handle, pds, active, status, account_host, account_seq, account_time,
				CASE status WHEN 'deleted' THEN 'synchronized' ELSE 'desynchronized' END, false, updated_at FROM NOW.repos o
			WHERE NOT active AND NOT EXISTS (SELECT FROM NEXT.repos n WHERE n.did = o.did)`,
		"UPDATE NEXT.repos n SET handle = o.handle FROM NOW.repos o WHERE n.did = o.did AND n.handle IS NULL AND o.handle IS NOT NULL",
		// What the projections have yet to do goes on under the same numbers: workers that
		// hold rows will delete those.
		"DELETE FROM NEXT.outbox", "DELETE FROM NEXT.sweeps", "DELETE FROM NEXT.routes",
		"INSERT INTO NEXT.routes SELECT * FROM NOW.routes",
		"INSERT INTO NEXT.outbox OVERRIDING SYSTEM VALUE SELECT * FROM NOW.outbox",
		"INSERT INTO NEXT.sweeps OVERRIDING SYSTEM VALUE SELECT * FROM NOW.sweeps",
		"SELECT setval(pg_get_serial_sequence('NEXT.outbox', 'id'), nextval(pg_get_serial_sequence('NOW.outbox', 'id')))",
		"SELECT setval(pg_get_serial_sequence('NEXT.sweeps', 'id'), nextval(pg_get_serial_sequence('NOW.sweeps', 'id')))",
		`INSERT INTO NEXT.outbox (version, target, collection, did, rkey)
			SELECT n.version, r.target, n.collection, n.did, n.rkey FROM NEXT.succession, NEXT.records n JOIN NEXT.routes r USING (collection)
			WHERE n.version > base`,
		`INSERT INTO NEXT.outbox (version, target, collection, did, rkey)
			SELECT c.version, r.target, o.collection, o.did, o.rkey FROM NEXT.clock c, NOW.records o JOIN NEXT.routes r USING (collection)
			WHERE NOT EXISTS (SELECT FROM NEXT.records n WHERE n.collection = o.collection AND n.did = o.did AND n.rkey = o.rkey)`,
		`INSERT INTO NEXT.dead_letters (created_at, host, seq, did, collection, rkey, rev, cid, stage, class, path, reason, expected, received, raw, identity)
			SELECT created_at, host, seq, did, collection, rkey, rev, cid, stage, class, path, reason, expected, received, raw, identity
			FROM NOW.dead_letters WHERE stage LIKE 'project:%' ON CONFLICT (identity) DO NOTHING`,
		// Views are bound to tables, not to names: those of the read tables that are about to
		// go are made again, and are empty until they are refreshed.
		`CREATE TEMPORARY TABLE views ON COMMIT DROP AS SELECT c.oid, relname, rtrim(pg_get_viewdef(c.oid), ';') AS definition,
				ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid) AS indexes
			FROM pg_class c WHERE relnamespace = '` + nextSchema + `'::regnamespace AND relkind = 'm'`,
		"DROP MATERIALIZED VIEW NEXT.corpus_statistics, NEXT.label_distribution, NEXT.annotation_coverage, NEXT.graph_density",
		// The read tables are a projection, which happens to be here: it moves as it is.
		"DROP TABLE NEXT.annotations, NEXT.annotation_layers, NEXT.relations, NEXT.relation_records, NEXT.search_documents",
		"ALTER TABLE NOW.annotations SET SCHEMA " + nextSchema,
		"ALTER TABLE NOW.annotation_layers SET SCHEMA " + nextSchema,
		"ALTER TABLE NOW.relations SET SCHEMA " + nextSchema,
		"ALTER TABLE NOW.relation_records SET SCHEMA " + nextSchema,
		"ALTER TABLE NOW.search_documents SET SCHEMA " + nextSchema,
		// Whatever was answered from the served tables is answered anew.
		"INSERT INTO NEXT.changed SELECT '" + accountsChanged + "', version FROM NEXT.clock ON CONFLICT (name) DO UPDATE SET version = excluded.version",
		// What operators did stays as it was noted.
		"INSERT INTO NEXT.admin_actions OVERRIDING SYSTEM VALUE SELECT * FROM NOW.admin_actions",
		"SELECT setval(pg_get_serial_sequence('NEXT.admin_actions', 'id'), nextval(pg_get_serial_sequence('NOW.admin_actions', 'id')))",
		"INSERT INTO NEXT.admin_tokens SELECT * FROM NOW.admin_tokens",
		// Those who follow the log know other events than those of the next tables' making.
		"DELETE FROM NEXT.events",
		"UPDATE NEXT.event_log n SET after = c.version, recording = o.recording, purged_at = now() FROM NEXT.clock c, NOW.event_log o",
		`DO $$ DECLARE view record; statement text; BEGIN
			FOR view IN SELECT * FROM pg_temp.views ORDER BY oid LOOP
				EXECUTE format('CREATE MATERIALIZED VIEW NEXT.%I AS %s WITH NO DATA', view.relname, view.definition);
				FOREACH statement IN ARRAY view.indexes LOOP EXECUTE statement; END LOOP;
			END LOOP;
		END $$`,
		"UPDATE NEXT.statistics SET refreshed_at = NULL",
		// Projections keep what they were given of a lost history.
		"INSERT INTO NEXT.recoveries SELECT * FROM NOW.recoveries ON CONFLICT DO NOTHING",
		"DROP TABLE NEXT.succession",
		// Whoever waits for this row, or still finds the old table by its name, learns from
		// its absence. The names alone would not do: a session may look one up in its cache.
		"DELETE FROM NOW.clock",
		s.grants(),
		"ALTER SCHEMA " + pgx.Identifier{s.schema}.Sanitize() + " RENAME TO " + oldSchema,
		"ALTER SCHEMA " + nextSchema + " RENAME TO " + pgx.Identifier{s.schema}.Sanitize(),
	}
}

// Drop removes the tables of a succession: those that were being filled, and those
// that were served before. It waits for who still reads them.
func (s *Succession) Drop(ctx context.Context) error {
	for _, schema := range []string{nextSchema, oldSchema} {
		if _, err := s.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE"); err != nil {
			return fmt.Errorf("drop the schema %s: %w", schema, ended(ctx, err))
		}
	}
	return nil
}
