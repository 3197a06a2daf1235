package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestDeletionLeavesNoTrace (G7) deletes accounts, active ones and one that was not,
// and looks for any trace of them: in every column of every table, in every document
// and every node. A row alone remains that says that the account is deleted.
func TestDeletionLeavesNoTrace(t *testing.T) {
	l, ix, api := inEveryStore(t, 4, "LAYERS_STATISTICS_INTERVAL=1s") // statistics name accounts until they are computed anew
	l.status(l.dids[1], simulate.Suspended)
	l.settled(ix)
	gone := l.dids[:2]
	all := map[syntax.DID]map[key]string{}
	for _, did := range gone {
		all[did] = l.recordsOf(did)
		require.NotEmpty(t, l.traces(did), "the search must find what is there")
		l.status(did, simulate.Deleted)
	}
	l.play(20)
	l.settled(ix)
	for _, did := range gone {
		rig.Eventually(t, "all traces of a deleted account to be gone", func() (bool, string) {
			traces := l.traces(did)
			return len(traces) == 1 && strings.HasPrefix(traces[0], "repos.did"), strings.Join(traces, "\n")
		}, ix)
		api.visible(all[did], l.contents, false)
		var active bool
		var status string
		require.NoError(t, l.Database.QueryRow(t.Context(), "SELECT active, status FROM repos WHERE did = $1", did).Scan(&active, &status))
		require.False(t, active)
		require.Equal(t, "deleted", status)
	}
	ix.Stop()
}

// traces lists where a DID is found, anywhere, but for other accounts' records that
// refer to it: those are theirs.
func (l *lab) traces(did syntax.DID) []string {
	l.t.Helper()
	var traces []string
	var columns [][2]string
	l.Rows(func(rows pgx.Rows) error {
		var c [2]string
		err := rows.Scan(&c[0], &c[1])
		columns = append(columns, c)
		return err
	}, `SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE n.nspname = 'public' AND c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped`)
	require.NotEmpty(l.t, columns)
	for _, c := range columns {
		var n int
		// Bytes are looked at as text too, by their escapes.
		query := fmt.Sprintf(`SELECT count(*) FROM %s WHERE CASE pg_typeof(%[2]s)::text WHEN 'bytea' THEN encode(%[2]s::text::bytea, 'escape') ELSE %[2]s::text END LIKE $1`,
			pgx.Identifier{c[0]}.Sanitize(), pgx.Identifier{c[1]}.Sanitize())
		require.NoError(l.t, l.Database.QueryRow(l.t.Context(), query, "%"+string(did)+"%").Scan(&n), query)
		if n > 0 && !l.theirs(c[0], c[1], did) {
			traces = append(traces, fmt.Sprintf("%s.%s: %d rows", c[0], c[1], n))
		}
	}
	if n := l.documentsOf(did); n > 0 {
		traces = append(traces, fmt.Sprintf("Elasticsearch: %d documents", n))
	}
	// What another's record refers to has a node with a name alone, whoever had it.
	for _, row := range l.Cypher(l.t, "MATCH (n) WHERE n.key STARTS WITH $space AND NOT (n._dangling AND n.did IS NULL AND (n)<--()) RETURN n") {
		node := row.Values[0].(neo4j.Node)
		if strings.Contains(fmt.Sprint(node.Props), string(did)) {
			traces = append(traces, fmt.Sprintf("Neo4j: %v %v", node.Labels, node.Props))
		}
	}
	return traces
}

// theirs tells whether all rows that hold the DID in a column are of other accounts'
// records, as where those refer to it.
func (l *lab) theirs(table, column string, did syntax.DID) bool {
	l.t.Helper()
	if table == "events" { // that the account is deleted is an event too
		n, err := store.NewEventLog(l.Database).Count(l.t.Context(), did)
		require.NoError(l.t, err)
		return n == 0
	}
	if column == "did" {
		return false
	}
	var has bool
	require.NoError(l.t, l.Database.QueryRow(l.t.Context(), `SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_name = $1 AND column_name = 'did')`, table).Scan(&has))
	if !has {
		return false
	}
	var n int
	query := fmt.Sprintf("SELECT count(*) FROM %s WHERE %s::text LIKE $1 AND did = $2", pgx.Identifier{table}.Sanitize(), pgx.Identifier{column}.Sanitize())
	require.NoError(l.t, l.Database.QueryRow(l.t.Context(), query, "%"+string(did)+"%", did).Scan(&n), query)
	return n == 0
}
