package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// heirs are tables that are being filled beside those of a world.
type heirs struct {
	*store.Succession
	url    string
	writer *store.Writer
}

func (w *world) heirs() *heirs {
	w.t.Helper()
	s, err := store.NewSuccession(w.t.Context(), w.Pool)
	require.NoError(w.t, err)
	resumed, err := s.Begin(w.t.Context())
	require.NoError(w.t, err)
	require.False(w.t, resumed)
	h := &heirs{Succession: s}
	h.url, err = store.NextURL(w.URL)
	require.NoError(w.t, err)
	require.NoError(w.t, store.Migrate(w.t.Context(), h.url, partitions, silent))
	require.NoError(w.t, s.Raise(w.t.Context()))
	require.NoError(w.t, s.Raise(w.t.Context()), "once is enough")
	pool, err := store.Open(w.t.Context(), store.Config{URL: h.url})
	require.NoError(w.t, err)
	w.t.Cleanup(pool.Close)
	h.writer = store.NewWriter(pool, nil, silent)
	release, _, err := h.writer.Lock(w.t.Context())
	require.NoError(w.t, err, "the served tables' writer has another lock")
	w.t.Cleanup(release)
	return h
}

func (h *heirs) apply(t *testing.T, cursor int64, changes ...store.Change) {
	t.Helper()
	require.NoError(t, h.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Cursor: cursor, Changes: changes}))
}

// TestFreshTablesTakeTheServedOnesPlace switches while somebody reads and somebody
// writes: answers stay the same, and no transaction is half in the one and half in
// the other.
func TestFreshTablesTakeTheServedOnesPlace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := storetest.New(t, partitions...)
	w := &world{Database: db, writer: store.NewWriter(db.Pool, routes, silent), reader: store.NewReader(db.Pool), t: t}
	release, _, err := w.writer.Lock(ctx)
	require.NoError(t, err)
	same, changed, gone, added := key(alice, expressions, "same"), key(alice, layers, "changed"), key(alice, expressions, "gone"), key(bob, expressions, "added")
	inactive, status := false, "deactivated"
	require.NoError(t, w.writer.Apply(ctx, store.Batch{
		Host: "relay.test", Cursor: 5, Changes: []store.Change{naming(put(same, 1), "at://did:plc:alice"), put(changed, 2), put(gone, 3)},
		Repos: []store.RepoUpdate{{DID: "did:plc:sleeper", Active: &inactive, Status: &status}},
	}))
	before, err := w.reader.Get(ctx, same)
	require.NoError(t, err)
	versions, err := store.NewChanges(w.Pool).Versions(ctx)
	require.NoError(t, err)
	require.False(t, versions.Changed(versions.Clock, nil))
	outbox := store.NewOutbox(w.Pool)
	for _, target := range []record.Target{record.Search, record.Graph, record.Tables} {
		rows, err := outbox.Claim(ctx, target, 100, time.Minute)
		require.NoError(t, err)
		require.NoError(t, outbox.Done(ctx, target, rows))
	}

	h := w.heirs()
	h.apply(t, 4, naming(put(same, 1), "at://did:plc:alice"), put(changed, 4), put(added, 5))
	require.ErrorIs(t, h.Switch(ctx), store.ErrBehind, "the cursor")
	require.NoError(t, h.Align(ctx, []syntax.NSID{expressions, layers}))
	comparison, err := h.Compare(ctx)
	require.NoError(t, err)
	require.Equal(t, []int64{3, 3, 1, 1, 1}, []int64{comparison.Served, comparison.Next, comparison.Missing, comparison.Added, comparison.Changed})

	reads, written := w.readUntil(same, before), w.writeUntilLost()
	require.Eventually(t, func() bool { return w.pairs() > 0 }, time.Minute, time.Millisecond, "nothing is written meanwhile")
	h.apply(t, 1<<40)
	require.ErrorContains(t, h.Switch(ctx), "yet to be fetched")
	_, err = w.Pool.Exec(ctx, "UPDATE layers_next.resyncs SET attempts = 1") // tried, in vain
	require.NoError(t, err)
	var switched error
	for range 50 {
		if switched = h.Switch(ctx); switched == nil {
			break
		}
		require.ErrorIs(t, switched, store.ErrBehind)
	}
	require.NoError(t, switched)
	since, err := store.NewChanges(w.Pool).Versions(ctx)
	require.NoError(t, err)
	require.True(t, since.Changed(versions.Clock, []syntax.NSID{"com.example.none"}), "what was answered from the old tables is taken for right")
	committed := written()
	require.Positive(t, reads())

	got, err := w.reader.Get(ctx, changed)
	require.NoError(t, err)
	require.Equal(t, cid(4), got.CID)
	require.Greater(t, got.Version, before.Version)
	_, err = w.reader.Get(ctx, gone)
	require.ErrorIs(t, err, store.ErrNotFound)
	var sleeper string
	require.NoError(t, w.Pool.QueryRow(ctx, "SELECT status FROM repos WHERE did = 'did:plc:sleeper'").Scan(&sleeper))
	require.Equal(t, status, sleeper)

	// Each transaction of the old writer is whole in the old tables, and no part of one is here.
	var pairs, strays int
	require.NoError(t, w.Pool.QueryRow(ctx, `SELECT count(*) FROM layers_old.records a JOIN layers_old.records b USING (did, rkey)
		WHERE a.collection = $1 AND b.collection = $2 AND rkey LIKE 'pair%'`, expressions, layers).Scan(&pairs))
	require.NoError(t, w.Pool.QueryRow(ctx, "SELECT count(*) FROM records WHERE rkey LIKE 'pair%'").Scan(&strays))
	require.Equal(t, []int{committed, 0}, []int{pairs, strays})

	pending := map[record.Key]bool{}
	rows, err := w.Pool.Query(ctx, "SELECT collection, did, rkey FROM outbox WHERE target = 'graph' AND rkey NOT LIKE 'pair%'")
	require.NoError(t, err)
	var k record.Key
	_, err = pgx.ForEachRow(rows, []any{&k.Collection, &k.DID, &k.Rkey}, func() error { pending[k] = true; return nil })
	require.NoError(t, err)
	require.Equal(t, map[record.Key]bool{changed: true, gone: true, added: true}, pending, "what differs is projected again, and nothing else")

	// The writer begins anew on the new tables.
	release()
	release, _, err = w.writer.Lock(ctx)
	require.NoError(t, err)
	defer release()
	seq, ok, err := w.writer.Cursor(ctx, "relay.test")
	require.NoError(t, err)
	require.Equal(t, []any{int64(1 << 40), true}, []any{seq, ok})
	named, _, err := w.reader.References(ctx, store.ReferenceQuery{Source: &same, Limit: 5})
	require.NoError(t, err)
	require.Equal(t, []store.Reference{{Source: same, Path: "ref", Target: "at://did:plc:alice"}}, named, "references have the version that their record was given")
	w.apply(put(key(alice, layers, "after"), 9), remove(same, 9))
	require.Empty(t, w.texts("SELECT target FROM refs"))
	w.apply(put(same, 10))
	_, err = w.reader.Get(ctx, key(alice, layers, "after"))
	require.NoError(t, err)
	require.NoError(t, h.Drop(ctx))
	_, err = w.reader.Get(ctx, same)
	require.NoError(t, err)
}

// readUntil reads a record over and over, as an API process does, and wants the same each time.
func (w *world) readUntil(k record.Key, want record.Record) (stop func() int) {
	ctx, cancel := context.WithCancel(w.t.Context())
	pool, err := store.Open(ctx, store.Config{URL: w.URL, ReadOnly: true, MaxConns: 4})
	require.NoError(w.t, err)
	w.t.Cleanup(pool.Close)
	reader := store.NewReader(pool)
	var running sync.WaitGroup
	reads, wrong := 0, []string{}
	running.Go(func() {
		for ctx.Err() == nil {
			got, err := reader.Get(ctx, k)
			if ctx.Err() == nil && (err != nil || got.Version != want.Version || !got.IndexedAt.Equal(want.IndexedAt) || got.CID != want.CID) {
				wrong = append(wrong, fmt.Sprint(got, err))
			}
			page, err := reader.List(ctx, store.Query{Collection: expressions, Limit: 100})
			if ctx.Err() == nil && (err != nil || len(page.Records) == 0) {
				wrong = append(wrong, fmt.Sprint("list", len(page.Records), err))
			}
			reads++
		}
	})
	return func() int {
		cancel()
		running.Wait()
		require.Empty(w.t, wrong)
		return reads
	}
}

// writeUntilLost writes pairs of records, two in each transaction, until other tables
// have taken the place of the writer's, and returns how many transactions committed.
func (w *world) writeUntilLost() (committed func() int) {
	n := 0
	ended := make(chan error, 1)
	go func() {
		for ; ; n++ {
			name := fmt.Sprintf("pair%06d", n)
			err := w.writer.Apply(w.t.Context(), store.Batch{Changes: []store.Change{put(key(alice, expressions, name), 1000+n), put(key(alice, layers, name), 1000+n)}})
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() int {
		require.ErrorIs(w.t, <-ended, store.ErrLockLost)
		require.Positive(w.t, n)
		return n
	}
}

// pairs is how many records there are of those that [world.writeUntilLost] writes.
func (w *world) pairs() (n int) {
	w.t.Helper()
	require.NoError(w.t, w.Pool.QueryRow(w.t.Context(), "SELECT count(*) FROM records WHERE rkey LIKE 'pair%'").Scan(&n))
	return n
}
