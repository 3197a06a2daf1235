package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

var silent = slog.New(slog.DiscardHandler)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// schema is every table, column, index and function that there is.
func schema(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns WHERE table_schema = 'public'
		UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
		UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		ORDER BY 1`)
	require.NoError(t, err)
	objects, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return slices.DeleteFunc(objects, func(o string) bool { return strings.Contains(o, "goose") })
}

func TestMigrationsGoUpAndDownAndUpAgain(t *testing.T) {
	t.Parallel()
	url := storetest.Empty(t)
	conn := connect(t, url)
	require.NoError(t, store.Migrate(t.Context(), url, partitions, silent))
	up := schema(t, conn)
	require.NotEmpty(t, up)

	require.NoError(t, store.Migrate(t.Context(), url, partitions, silent))
	require.Equal(t, up, schema(t, conn), "a second time changes nothing")

	require.NoError(t, store.MigrateDown(t.Context(), url, 0))
	require.Empty(t, schema(t, conn), "down leaves nothing")

	require.NoError(t, store.Migrate(t.Context(), url, partitions, silent))
	require.Equal(t, up, schema(t, conn))

	for version := int64(4); version >= 0; version-- {
		require.NoError(t, store.MigrateDown(t.Context(), url, version), "one step at a time")
	}
	require.Empty(t, schema(t, conn))
}

func TestSeveralProcessesMayMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := storetest.Empty(t)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error { return store.Migrate(t.Context(), url, partitions, silent) })
	}
	require.NoError(t, group.Wait())
}

func TestIndexesFollowTheLists(t *testing.T) {
	t.Parallel()
	url := storetest.Empty(t)
	conn := connect(t, url)
	listIndexes := func() (names []string) {
		rows, err := conn.Query(t.Context(), "SELECT indexname FROM pg_indexes WHERE starts_with(indexname, 'list_') ORDER BY 1")
		require.NoError(t, err)
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return names
	}
	with := func(lists ...store.ListIndex) []store.Partition {
		return []store.Partition{{Collection: expressions, Lists: lists}}
	}
	byKind := store.ListIndex{Repo: true, Optional: []store.Column{{Name: "kind"}}}
	require.NoError(t, store.Migrate(t.Context(), url, with(), silent))
	bare := listIndexes()
	require.Len(t, bare, 2, "the whole collection, and by repository")

	require.NoError(t, store.Migrate(t.Context(), url, with(byKind, byKind), silent))
	indexed := listIndexes()
	require.Len(t, indexed, 3, "the same list twice is one index")
	require.Subset(t, indexed, bare)

	quoted := store.ListIndex{Required: []store.Column{{Name: `it's a "name" ẹ` + strings.Repeat("x", 80)}}}
	require.NoError(t, store.Migrate(t.Context(), url, with(quoted), silent))
	changed := listIndexes()
	require.Len(t, changed, 3, "the index of a list that is no more is dropped")
	require.NotEqual(t, indexed, changed)
	for _, name := range changed {
		require.LessOrEqual(t, len(name), 63)
	}
}

func TestForeignRecordsMoveIntoTheirPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, posts, "one")
	c := put(k, 1)
	c.Filter = map[string]any{"languages": []string{"yo"}}
	w.apply(c)
	before, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)

	partition := store.Partition{Collection: posts, Lists: []store.ListIndex{{Repo: true, Optional: []store.Column{{Name: "languages", Array: true}}}}}
	require.NoError(t, store.Migrate(t.Context(), w.URL, append(slices.Clone(partitions), partition), silent))

	require.Empty(t, w.texts("SELECT rkey FROM records_foreign"))
	for _, reader := range []*store.Reader{w.reader, store.NewReader(w.Pool)} {
		after, err := reader.Get(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, before, after, "also for a reader that does not know of the partition yet")
		repo := alice
		page, err := reader.List(t.Context(), store.Query{
			Collection: posts, Repo: &repo, Limit: 5, Match: []store.Match{{Name: "languages", Values: []string{"yo"}}},
		})
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
	}
	w.apply(put(k, 2))
	after, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, cid(2), after.CID, "the writer finds it there")
}

// TestReferencesKeepTheirRecord migrates a database whose references went by the names
// of their records.
func TestReferencesKeepTheirRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(naming(put(key(alice, expressions, "one"), 1), "at://did:plc:bob"), naming(put(key(alice, posts, "two"), 2), "at://did:plc:bob"))
	const all = "SELECT rkey || ' ' || target FROM records r JOIN refs f USING (collection, did, rkey) WHERE r.targets = ARRAY[f.target_hash] ORDER BY 1"
	before := w.texts(all)
	require.Len(t, before, 2)

	require.NoError(t, store.MigrateDown(t.Context(), w.URL, 17))
	require.Empty(t, w.texts("SELECT attname FROM pg_attribute WHERE attrelid = 'refs'::regclass AND attname = 'target_hash'"))
	require.NoError(t, store.Migrate(t.Context(), w.URL, partitions, silent))
	require.Equal(t, before, w.texts(all))

	w.apply(remove(key(alice, expressions, "one"), 3))
	require.Len(t, w.texts(all), 1)
}

func TestReadersCannotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	w.apply(put(k, 1))
	own, err := store.Open(t.Context(), store.Config{URL: w.URL, ReadOnly: true, MaxConns: 1})
	require.NoError(t, err)
	defer own.Close()
	for name, pool := range map[string]*pgxpool.Pool{"the owner's login": own, "a login of the API's own": w.Reads(t)} {
		_, err := store.NewReader(pool).Get(t.Context(), k)
		require.NoError(t, err, name)
		page, err := store.NewReader(pool).List(t.Context(), store.Query{Collection: expressions, Limit: 1})
		require.NoError(t, err, name)
		require.Len(t, page.Records, 1, name)
		may, err := store.MayWrite(t.Context(), pool)
		require.NoError(t, err)
		require.Equal(t, pool == own, may, name)

		const insert = "INSERT INTO cursor (host, seq, updated_at) VALUES ('evil.test', 1, now())"
		requireCode(t, "25006", pool, insert)
		for _, statement := range []string{insert, "DELETE FROM records", "SELECT nextval(pg_get_serial_sequence('outbox', 'id'))", "CREATE TABLE evil ()"} {
			requireCode(t, "42501", pool, "BEGIN READ WRITE; "+statement)
		}
	}
}

// TestReadersReadEverything finds what a login of the API can read and what it cannot:
// all tables and views, also those that come later, but none of what operators did.
func TestReadersReadEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reads := w.Reads(t)
	w.apply(put(key(alice, posts, "one"), 1))
	later := store.Partition{Collection: posts}
	require.NoError(t, store.Migrate(t.Context(), w.URL, append(slices.Clone(partitions), later), silent))
	rows, err := w.Pool.Query(t.Context(), `SELECT relname, oid::regclass::text FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') ORDER BY 1`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Quoted string }])
	require.NoError(t, err)
	require.Greater(t, len(tables), 20)
	for _, table := range tables {
		_, err := reads.Exec(t.Context(), "SELECT FROM "+table.Quoted+" WHERE false")
		if strings.HasPrefix(table.Name, "admin_") {
			requireCode(t, "42501", reads, "SELECT FROM "+table.Quoted)
		} else {
			require.NoError(t, err, table.Name)
		}
	}
	page, err := store.NewReader(reads).List(t.Context(), store.Query{Collection: posts, Limit: 5})
	require.NoError(t, err)
	require.Len(t, page.Records, 1, "in a partition that is newer than the login")
}

func requireCode(t *testing.T, code string, pool *pgxpool.Pool, statement string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), statement)
	var refusal *pgconn.PgError
	require.ErrorAs(t, err, &refusal, statement)
	require.Equal(t, code, refusal.Code, refusal.Message)
}

// TestALoginWithoutMuchRight shows that neither migrating nor reading needs a superuser:
// where the role is there, whoever owns the tables lets it read them.
func TestALoginWithoutMuchRight(t *testing.T) {
	t.Parallel()
	address := storetest.Empty(t)
	require.NoError(t, store.Migrate(t.Context(), storetest.Empty(t), nil, silent), "the role is there")
	login := storetest.Login(t, address)
	admin := connect(t, address)
	u, err := url.Parse(login)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "GRANT ALL ON SCHEMA public TO "+u.User.Username()+" WITH GRANT OPTION")
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "CREATE TABLE somebody_elses ()")
	require.NoError(t, err)

	require.NoError(t, store.Migrate(t.Context(), login, partitions, silent))
	own, err := store.Open(t.Context(), store.Config{URL: login, ReadOnly: true})
	require.NoError(t, err)
	defer own.Close()
	reads, err := store.Open(t.Context(), store.Config{URL: storetest.Login(t, address, store.ReaderRole), ReadOnly: true})
	require.NoError(t, err)
	defer reads.Close()
	for _, pool := range []*pgxpool.Pool{own, reads} {
		_, err = store.NewReader(pool).Get(t.Context(), key(alice, expressions, "one"))
		require.ErrorIs(t, err, store.ErrNotFound)
		requireCode(t, "25006", pool, "DELETE FROM records")
	}
	requireCode(t, "42501", reads, "SELECT FROM somebody_elses")

	var log bytes.Buffer
	nobody := "layers_test_" + random(12)
	require.NoError(t, store.GrantReader(t.Context(), connect(t, login), nobody, slog.New(slog.NewTextHandler(&log, nil))), "nobody has made the role")
	require.Contains(t, log.String(), "CREATE ROLE "+nobody+" NOLOGIN")
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := store.Open(t.Context(), store.Config{URL: "postgres://127.0.0.1:1/none?connect_timeout=1"})
	require.ErrorContains(t, err, "connect to PostgreSQL")
	_, err = store.Open(t.Context(), store.Config{URL: "::"})
	require.ErrorContains(t, err, "database URL")
}
