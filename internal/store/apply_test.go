package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// everything is all that the store holds of records, references and repositories,
// apart from times of its own clock and versions.
func (w *world) everything() map[string][]string {
	w.t.Helper()
	state := map[string][]string{}
	for name, query := range map[string]string{
		"records": `SELECT r.collection || ' ' || did || ' ' || rkey || ' ' || cid || ' ' || rev || ' ' || coalesce(filter::text, '-') || ' ' || value FROM records r`,
		"refs":    `SELECT collection || ' ' || did || ' ' || rkey || ' ' || path || ' ' || target FROM refs`,
		"repos":   `SELECT did || ' ' || coalesce(handle, '-') || ' ' || active || ' ' || status || ' ' || sync || ' ' || rev || ' ' || data_cid FROM repos`,
		"letters": `SELECT did || ' ' || collection || ' ' || rkey || ' ' || rev || ' ' || reason FROM dead_letters`,
	} {
		state[name] = w.texts(query + " ORDER BY 1")
	}
	return state
}

func (w *world) texts(query string, args ...any) []string {
	w.t.Helper()
	rows, err := w.Pool.Query(context.Background(), query, args...)
	require.NoError(w.t, err)
	defer rows.Close()
	list := []string{}
	for rows.Next() {
		var s string
		require.NoError(w.t, rows.Scan(&s))
		list = append(list, s)
	}
	require.NoError(w.t, rows.Err())
	return list
}

// locked counts the sessions that wait for a lock.
func (w *world) locked() (n int) {
	w.t.Helper()
	require.NoError(w.t, w.Pool.QueryRow(w.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n))
	return n
}

// outboxKeys empties a target's outbox and returns what it named.
func (w *world) drain(target record.Target) map[record.Key]int64 {
	w.t.Helper()
	named := map[record.Key]int64{}
	for {
		rows, err := w.outbox.Claim(context.Background(), target, 100, time.Minute)
		require.NoError(w.t, err)
		if len(rows) == 0 {
			return named
		}
		for _, r := range rows {
			named[r.Key] = max(named[r.Key], r.Version)
		}
		require.NoError(w.t, w.outbox.Done(context.Background(), target, rows))
	}
}

func TestReplayedAndOvertakenChangesHaveNoEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	repoAt := func(n int) store.RepoUpdate {
		r := rev(n)
		return store.RepoUpdate{DID: alice, Rev: &r}
	}
	apply := func(n int, c store.Change) {
		require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Changes: []store.Change{c}, Repos: []store.RepoUpdate{repoAt(n)}}))
	}
	create, update, deletion := put(k, 1), put(k, 2), remove(k, 3)
	apply(1, create)
	apply(2, update)
	after := w.everything()
	w.drain(record.Search)

	for _, c := range []store.Change{update, create} {
		apply(2, c)
		require.Equal(t, after, w.everything(), "replay of rev %s", c.Rev)
	}
	apply(3, deletion)
	after = w.everything()
	require.Empty(t, after["records"])
	require.Len(t, w.drain(record.Search), 1)

	for _, c := range []store.Change{create, update, deletion} {
		apply(3, c)
		require.Equal(t, after, w.everything(), "replay of rev %s after the delete", c.Rev)
	}
	require.Empty(t, w.drain(record.Search), "what has no effect has no outbox row either")

	apply(4, put(k, 4))
	require.Len(t, w.everything()["records"], 1, "a later create is another record")
}

func TestABatchKeepsTheLastChangeOfEachRecord(t *testing.T) {
	t.Parallel()
	k := key(alice, expressions, "one")
	for name, c := range map[string]struct {
		changes []store.Change
		want    int // the commit whose version of the record remains; 0 for none
	}{
		"create, update":                  {[]store.Change{put(k, 1), put(k, 2)}, 2},
		"create, update, delete":          {[]store.Change{put(k, 1), put(k, 2), remove(k, 3)}, 0},
		"create, delete, create":          {[]store.Change{put(k, 1), remove(k, 2), put(k, 3)}, 3},
		"out of order":                    {[]store.Change{put(k, 3), put(k, 2), remove(k, 1)}, 3},
		"twice the same":                  {[]store.Change{put(k, 1), put(k, 1)}, 1},
		"delete, replayed create":         {[]store.Change{remove(k, 2), put(k, 1)}, 0},
		"delete of what is not there":     {[]store.Change{remove(k, 1)}, 0},
		"overtaken, then fetched whole":   {[]store.Change{put(k, 3), resync(put(k, 2))}, 2},
		"fetched whole, then a commit":    {[]store.Change{resync(put(k, 2)), put(k, 3)}, 3},
		"fetched whole, then overtaken":   {[]store.Change{resync(put(k, 2)), put(k, 1)}, 2},
		"an update without a create":      {[]store.Change{{Action: record.Update, Key: k, Rev: rev(1), CID: cid(1), JSON: json.RawMessage(`1`)}}, 1},
		"deletes again after it was gone": {[]store.Change{put(k, 1), remove(k, 2), remove(k, 3)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.apply(c.changes...)
			got, err := w.reader.Get(t.Context(), k)
			if c.want == 0 {
				require.ErrorIs(t, err, store.ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, rev(c.want), got.Rev)
			require.Equal(t, cid(c.want), got.CID)
		})
	}
}

func resync(c store.Change) store.Change {
	c.Resync = true
	return c
}

func TestResyncReplacesWhateverTheRevsSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	same, older, gone := key(alice, expressions, "same"), key(alice, expressions, "older"), key(alice, expressions, "gone")
	w.apply(put(same, 5), put(older, 5), put(gone, 5))
	w.drain(record.Search)
	before, err := w.reader.Get(t.Context(), same)
	require.NoError(t, err)

	unchanged := resync(put(same, 5))
	unchanged.Rev = rev(3)
	w.apply(unchanged, resync(put(older, 3)), resync(remove(gone, 3)))

	after, err := w.reader.Get(t.Context(), same)
	require.NoError(t, err)
	require.Equal(t, before, after, "the same CID is no change")
	replaced, err := w.reader.Get(t.Context(), older)
	require.NoError(t, err)
	require.Equal(t, cid(3), replaced.CID)
	_, err = w.reader.Get(t.Context(), gone)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ElementsMatch(t, []record.Key{older, gone}, keysOf(w.drain(record.Search)))
}

func keysOf(named map[record.Key]int64) (keys []record.Key) {
	for k := range named {
		keys = append(keys, k)
	}
	return keys
}

func TestVersionsGrowWithEveryChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, other := key(alice, expressions, "one"), key(alice, expressions, "two")
	var last int64
	for _, c := range []store.Change{put(k, 1), put(other, 2), put(k, 3), remove(k, 4), put(k, 5)} {
		w.apply(c)
		version := w.drain(record.Search)[c.Key]
		require.Greater(t, version, last)
		last = version
		if c.Action != record.Delete {
			got, err := w.reader.Get(t.Context(), c.Key)
			require.NoError(t, err)
			require.Equal(t, version, got.Version, "the outbox row has the version of the change")
		}
	}
}

func TestAnUpdateKeepsTheRecordsPlaceAndANewRecordGetsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	first := put(k, 1)
	first.CreatedAt = time.Unix(1_000_000, 0)
	w.apply(first)
	original, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)

	later := put(k, 2)
	later.CreatedAt = time.Unix(2_000_000, 0)
	w.apply(later)
	updated, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, original.IndexedAt, updated.IndexedAt)
	require.True(t, updated.CreatedAt.Equal(later.CreatedAt))
	require.Equal(t, first.CreatedAt.UnixMicro(), w.sortAt(k).UnixMicro(), "an update does not move it")

	again := put(k, 4)
	again.CreatedAt = time.Unix(3_000_000, 0)
	w.apply(remove(k, 3), again)
	renewed, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.True(t, renewed.IndexedAt.After(original.IndexedAt))
	require.Equal(t, again.CreatedAt.UnixMicro(), w.sortAt(k).UnixMicro(), "deleted and created in one batch, it is another record")

	overtaken := put(k, 9)
	overtaken.CreatedAt = time.Unix(4_000_000, 0)
	w.apply(remove(k, 3), overtaken)
	require.Equal(t, again.CreatedAt.UnixMicro(), w.sortAt(k).UnixMicro(), "the delete was overtaken, so this is an update")
}

// sortAt is where lists have a record, asked by way of a list.
func (w *world) sortAt(k record.Key) time.Time {
	w.t.Helper()
	w.apply(store.Change{Action: record.Create, Key: key(k.DID, k.Collection, "last"), Rev: rev(1), CID: cid(1), JSON: json.RawMessage(`{}`), CreatedAt: time.Unix(1, 0)})
	page, err := w.reader.List(context.Background(), store.Query{Collection: k.Collection, Repo: &k.DID, Limit: 1})
	require.NoError(w.t, err)
	require.Equal(w.t, k, page.Records[0].Key)
	require.NotNil(w.t, page.Next)
	return page.Next.SortAt
}

func TestARecordFromTheFutureIsSortedByWhenItWasSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "one")
	c := put(k, 1)
	c.CreatedAt = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	w.apply(c)
	got, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, got.IndexedAt.UnixMicro(), w.sortAt(k).UnixMicro())
}

func TestValuesAndNamesSurviveExactly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	everyCharacter := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:~"
	long := strings.Repeat(everyCharacter, 8)[:512]
	big := `{"text":"` + strings.Repeat("ẹ̀kọ́ ", 125_000)[:999_900] + `"}`
	values := map[string]string{
		everyCharacter: `{"nul":"a\u0000b","z":1,"a":2,"max":9007199254740991,"min":-9007199254740991}`,
		long:           `{"text":"😀 \"quoted\" \\ \/ é","empty":"","list":[[],{},null,true]}`,
		"big":          strings.ToValidUTF8(big, "?"),
	}
	longTarget := syntax.ATURI("at://" + string(alice) + "/" + string(expressions) + "/" + random(8000))
	for rkey, value := range values {
		c := put(key(alice, layers, rkey), 1)
		c.JSON = json.RawMessage(value)
		c.Refs = []record.Ref{{Path: "a", Target: longTarget}, {Path: "a", Target: longTarget}, {Path: "b", Target: longTarget}}
		w.apply(c)
	}
	for rkey, value := range values {
		got, err := w.reader.Get(t.Context(), key(alice, layers, rkey))
		require.NoError(t, err)
		require.Equal(t, value, string(got.Value))
	}
	referrers, err := w.reader.Referrers(t.Context(), string(longTarget), store.Referrer{}, 100)
	require.NoError(t, err)
	require.Len(t, referrers, 2*len(values), "each path once")

	updated := put(key(alice, layers, "big"), 2)
	updated.JSON = json.RawMessage(values["big"])
	w.apply(updated)
	got, err := w.reader.Get(t.Context(), updated.Key)
	require.NoError(t, err)
	require.Equal(t, values["big"], string(got.Value), "also by an update")
	referrers, err = w.reader.Referrers(t.Context(), string(longTarget), store.Referrer{}, 100)
	require.NoError(t, err)
	require.Len(t, referrers, 2*len(values)-2, "an update replaces the references")
}

// random is text that does not compress, so that it fills an index as it would at worst.
func random(n int) string {
	source := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[source.IntN(62)]
	}
	return string(b)
}

func TestTheLongestNamesAndTermsFitEveryIndex(t *testing.T) {
	t.Parallel()
	longest := syntax.NSID(strings.Repeat(random(60)+".", 6)[:316] + "x")
	columns := []store.Column{{Name: "one"}, {Name: "two"}, {Name: "many", Array: true}}
	w := newWorldWith(t, store.Partition{Collection: longest, Lists: []store.ListIndex{
		{Required: columns[:1], Optional: columns[1:]},
		{Repo: true, Optional: columns},
		{Optional: columns},
	}})
	did := syntax.DID("did:web:" + random(1016))
	for _, collection := range []syntax.NSID{longest, syntax.NSID(random(317))} {
		c := put(key(did, collection, random(512)), 1)
		c.Filter = map[string]any{"one": random(512), "two": random(511) + "z", "many": []string{random(510), random(509)}}
		c.Refs = []record.Ref{{Path: random(4000), Target: syntax.ATURI("at://" + random(8000))}}
		w.apply(c)
		got, err := w.reader.Get(t.Context(), c.Key)
		require.NoError(t, err)
		require.Equal(t, c.Key, got.Key)
	}
}

func TestWhatCannotBeStoredIsRejectedAndWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := put(key(alice, expressions, "good"), 1)
	for name, spoil := range map[string]func(*store.Change){
		"DID":        func(c *store.Change) { c.Key.DID = syntax.DID("did:web:" + random(1017)) },
		"record key": func(c *store.Change) { c.Key.Rkey = syntax.RecordKey(random(513)) },
		"collection": func(c *store.Change) { c.Key.Collection = syntax.NSID(random(318)) },
		"JSON":       func(c *store.Change) { c.JSON = json.RawMessage(`{"a":`) },
		"NUL":        func(c *store.Change) { c.Refs = []record.Ref{{Path: "a\x00", Target: good.Key.URI()}} },
		"UTF-8":      func(c *store.Change) { c.JSON = json.RawMessage("\"\xff\"") },
		"term":       func(c *store.Change) { c.Filter = map[string]any{"kind": random(3000)} },
	} {
		bad := put(key(alice, expressions, "bad"), 1)
		spoil(&bad)
		err := w.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Cursor: 9, Changes: []store.Change{good, bad}})
		require.ErrorIs(t, err, store.ErrRejected, name)
		require.NotErrorIs(t, err, store.ErrLockLost, name)
		require.Empty(t, w.everything()["records"], name)
		_, ok, err := w.writer.Cursor(t.Context(), "relay.test")
		require.NoError(t, err)
		require.False(t, ok, "%s: the cursor is part of the transaction", name)
	}
	var long *store.TooLong
	err := w.writer.Apply(t.Context(), store.Batch{Changes: []store.Change{put(key(syntax.DID(random(1025)), expressions, "x"), 1)}})
	require.ErrorAs(t, err, &long)
	require.Equal(t, store.TooLong{Name: "DID", Bytes: 1025, Most: 1024}, *long)
	w.apply(good)
	require.Len(t, w.everything()["records"], 1, "the writer goes on")
}

// TestAnyStreamEndsInTheSameState applies random streams in random batches, with
// replays of what came before, and compares with what the stream says at its end.
func TestAnyStreamEndsInTheSameState(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			source := rand.New(rand.NewPCG(seed, 1))
			stream, want := randomStream(source, 400)
			for at := 0; at < len(stream); {
				from := max(0, at-source.IntN(40)) // some again
				to := min(len(stream), at+1+source.IntN(30))
				batch := store.Batch{Host: "relay.test", Cursor: int64(to)}
				for _, e := range stream[from:to] {
					batch.Changes = append(batch.Changes, e)
					batch.Repos = append(batch.Repos, store.RepoUpdate{DID: e.Key.DID, Rev: &e.Rev})
				}
				require.NoError(t, w.writer.Apply(t.Context(), batch))
				at = to
			}
			got := map[record.Key]syntax.CID{}
			for _, collection := range []syntax.NSID{expressions, posts} {
				records, err := w.reader.Scan(t.Context(), collection, record.Key{}, 1000)
				require.NoError(t, err)
				for _, r := range records {
					got[r.Key] = r.CID
				}
			}
			require.Equal(t, want, got)
			for k := range want {
				require.Equal(t, []string{want[k].String()}, w.texts("SELECT path FROM refs WHERE collection = $1 AND did = $2 AND rkey = $3",
					k.Collection, k.DID, k.Rkey), "the references are those of the last change")
			}
			require.Equal(t, []string{fmt.Sprint(len(want))}, w.texts("SELECT count(*)::text FROM refs"))
			w.requireProjected(record.Search, expressions)
		})
	}
}

// randomStream makes changes to few records, each in a commit of its own, and tells
// what there is at the end.
func randomStream(source *rand.Rand, length int) (stream []store.Change, end map[record.Key]syntax.CID) {
	end = map[record.Key]syntax.CID{}
	for n := range length {
		did := []syntax.DID{alice, bob}[source.IntN(2)]
		collection := []syntax.NSID{expressions, posts}[source.IntN(2)]
		k := key(did, collection, fmt.Sprint("r", source.IntN(12)))
		if _, there := end[k]; there && source.IntN(3) == 0 {
			stream = append(stream, remove(k, n))
			delete(end, k)
			continue
		}
		c := put(k, n)
		c.Refs = []record.Ref{{Path: c.CID.String(), Target: key(bob, expressions, fmt.Sprint("r", source.IntN(12))).URI()}}
		stream = append(stream, c)
		end[k] = c.CID
	}
	return stream, end
}

// requireProjected carries out a target's outbox, in a random order, as a worker
// would, and compares the outcome with the records.
func (w *world) requireProjected(target record.Target, collection syntax.NSID) {
	w.t.Helper()
	ctx := context.Background()
	projected := map[record.Key]int64{} // versions; negative once removed
	var rows []record.Pending
	for {
		claimed, err := w.outbox.Claim(ctx, target, 50, time.Minute)
		require.NoError(w.t, err)
		if len(claimed) == 0 {
			break
		}
		rows = append(rows, claimed...)
	}
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for _, row := range rows {
		present, err := w.reader.Load(ctx, []record.Key{row.Key})
		require.NoError(w.t, err)
		version := row.Version
		r, there := present[row.Key]
		if there {
			version = max(version, r.Version)
		}
		if before := projected[row.Key]; max(before, -before) > version {
			continue
		}
		projected[row.Key] = version
		if !there {
			projected[row.Key] = -version
		}
	}
	want, err := w.reader.ScanVersions(ctx, collection, record.Key{}, 10_000)
	require.NoError(w.t, err)
	for _, p := range want {
		require.GreaterOrEqual(w.t, projected[p.Key], p.Version, "%s", p.Key)
		delete(projected, p.Key)
	}
	for k, version := range projected {
		require.Negative(w.t, version, "%s is projected and not there", k)
	}
}

// What the cursor has passed is on disk, whatever the server is set to; a stricter
// setting stays.
func TestWhatIsConfirmedIsOnDisk(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{"off": "on", "local": "on", "remote_apply": "remote_apply"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t, partitions...)
			for _, statement := range []string{
				"DO $do$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = " + setting + "', current_database()); END $do$",
				"CREATE TABLE seen (setting text)",
				`CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
					$$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$`,
				"CREATE TRIGGER see BEFORE INSERT OR UPDATE ON cursor FOR EACH ROW EXECUTE FUNCTION see()",
			} {
				_, err := db.Pool.Exec(t.Context(), statement)
				require.NoError(t, err, statement)
			}
			require.NoError(t, db.Writer(t, routes).Apply(t.Context(), store.Batch{Host: "relay", Cursor: 1}))
			var seen string
			require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT DISTINCT setting FROM seen").Scan(&seen))
			require.Equal(t, want, seen)
		})
	}
}
