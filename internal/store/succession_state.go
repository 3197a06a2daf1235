package store

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// State tells what earlier runs have left: next tables that are being filled, or old
// ones that were served before a switch.
func (s *Succession) State(ctx context.Context) (next, old bool, err error) {
	err = s.pool.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL, to_regnamespace($2) IS NOT NULL", nextSchema, oldSchema).Scan(&next, &old)
	if err != nil {
		return false, false, fmt.Errorf("look for the schemas of a succession: %w", ended(ctx, err))
	}
	return next, old, nil
}

// Strangers names what is in the served schema and is not of this program: the old
// schema could not be dropped without it. Next tables must have been migrated.
func (s *Succession) Strangers(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT 'relation ' || relname FROM pg_class c
		WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition AND NOT EXISTS (
			SELECT FROM pg_class n WHERE n.relnamespace = to_regnamespace($2) AND n.relname = c.relname)
		UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extnamespace = to_regnamespace($1)
		UNION ALL SELECT 'function ' || proname FROM pg_proc c WHERE pronamespace = to_regnamespace($1) AND NOT EXISTS (
			SELECT FROM pg_proc n WHERE n.pronamespace = to_regnamespace($2) AND n.proname = c.proname)
		ORDER BY 1 LIMIT 20`, pgx.Identifier{s.schema}.Sanitize(), nextSchema)
	if err == nil {
		var names []string
		if names, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			return names, nil
		}
	}
	return nil, fmt.Errorf("look for what else is in the served schema: %w", ended(ctx, err))
}

// Ask has every active repository that the served tables know fetched into the next
// ones, whether or not a search for repositories finds it.
func (s *Succession) Ask(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, s.sql(`
		INSERT INTO NEXT.resyncs (did, reason, asked) SELECT did, 'everything is fetched anew', true FROM NOW.repos o
		WHERE active AND NOT EXISTS (SELECT FROM NEXT.repos n WHERE n.did = o.did) ON CONFLICT DO NOTHING`))
	if err != nil {
		return fmt.Errorf("ask for the repositories that are served: %w", ended(ctx, err))
	}
	return nil
}

// Lack is a repository that is whole in the served tables, and not in the next ones.
type Lack struct {
	DID         syntax.DID
	Host, Cause string // of the last failure to fetch it, if there was one
}

// Lacks lists the first of the repositories that a switch would lose.
func (s *Succession) Lacks(ctx context.Context, limit int) ([]Lack, error) {
	rows, err := s.pool.Query(ctx, s.sql(`
		SELECT o.did, coalesce(r.host, ''), coalesce(r.error, '') FROM NOW.repos o
		LEFT JOIN NEXT.repos n USING (did) LEFT JOIN NEXT.resyncs r USING (did)
		WHERE o.active AND o.complete AND o.sync = 'synchronized' AND (n.did IS NULL OR n.active AND NOT (n.complete AND n.sync = 'synchronized'))
		ORDER BY 1 LIMIT $1`), limit)
	if err == nil {
		var lacks []Lack
		if lacks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Lack]); err == nil {
			return lacks, nil
		}
	}
	return nil, fmt.Errorf("list the repositories that the next tables lack: %w", ended(ctx, err))
}

// Differences names the first of the records that differ.
func (s *Succession) Differences(ctx context.Context, limit int) ([]string, error) {
	rows, err := s.pool.Query(ctx, s.sql(`
		SELECT CASE WHEN n.cid IS NULL THEN 'no longer there' WHEN o.cid IS NULL THEN 'was missing' ELSE 'was different' END
			|| ': at://' || did || '/' || collection || '/' || rkey
		FROM NOW.records o FULL JOIN NEXT.records n USING (collection, did, rkey) WHERE o.cid IS DISTINCT FROM n.cid OR o.value::text <> n.value::text LIMIT $1`), limit)
	if err == nil {
		var lines []string
		if lines, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			return lines, nil
		}
	}
	return nil, fmt.Errorf("list the records that differ: %w", ended(ctx, err))
}

// grants gives the next schema and its tables the rights that others have on the
// served ones, as a login of the API that may only read.
func (s *Succession) grants() string {
	return `DO $$ DECLARE statement text; BEGIN
		FOR statement IN
			SELECT format('GRANT %s ON NEXT.%I TO %s', a.privilege_type, c.relname, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
			FROM pg_class c, aclexplode(c.relacl) a
			WHERE c.relnamespace = to_regnamespace(` + quote(pgx.Identifier{s.schema}.Sanitize()) + `) AND c.relkind IN ('r', 'p', 'v', 'm') AND a.grantee <> c.relowner
				AND EXISTS (SELECT FROM pg_class n WHERE n.relnamespace = '` + nextSchema + `'::regnamespace AND n.relname = c.relname)
			UNION ALL
			SELECT format('GRANT %s ON SCHEMA ` + nextSchema + ` TO %s', a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
			FROM pg_namespace s, aclexplode(s.nspacl) a
			WHERE s.oid = to_regnamespace(` + quote(pgx.Identifier{s.schema}.Sanitize()) + `) AND a.grantee <> s.nspowner
			UNION ALL
			SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA ` + nextSchema + ` GRANT %s ON TABLES TO %s',
				d.defaclrole::regrole, a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
			FROM pg_default_acl d, aclexplode(d.defaclacl) a
			WHERE d.defaclnamespace = to_regnamespace(` + quote(pgx.Identifier{s.schema}.Sanitize()) + `) AND d.defaclobjtype = 'r'
				AND pg_has_role(d.defaclrole, 'MEMBER')
		LOOP EXECUTE statement; END LOOP;
	END $$`
}
