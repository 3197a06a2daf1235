package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

func (w *world) update(host string, updates ...store.RepoUpdate) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Host: host, Repos: updates}))
}

func (w *world) repo(did syntax.DID) store.Repo {
	w.t.Helper()
	repos, err := w.writer.LoadRepos(w.t.Context(), []syntax.DID{did})
	require.NoError(w.t, err)
	require.Contains(w.t, repos, did)
	return repos[did]
}

func pointer[T any](v T) *T { return &v }

func TestRepositoriesAreUpdatedFieldByField(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "one"), 1))
	fresh := w.repo(alice)
	require.Equal(t, store.Desynchronized, fresh.Sync, "nobody has said otherwise")
	require.True(t, fresh.Active)
	require.False(t, fresh.Complete)

	w.update("relay.test",
		store.RepoUpdate{DID: alice, Rev: pointer(rev(5)), CommitCID: pointer(cid(5)), Data: pointer(cid(50)), Sync: pointer(store.Desynchronized), Reason: pointer("gap\x00")},
		store.RepoUpdate{DID: bob, PDS: pointer("https://pds.test")},
		store.RepoUpdate{DID: alice, Handle: pointer(syntax.Handle("Alice.Test")), Complete: pointer(true)},
	)
	got := w.repo(alice)
	require.Equal(t, rev(5), got.Rev)
	require.Equal(t, cid(5), got.CommitCID)
	require.Equal(t, cid(50), got.Data)
	require.Equal(t, syntax.Handle("alice.test"), got.Handle)
	require.Equal(t, "gap\uFFFD", got.Reason)
	require.True(t, got.Complete)
	require.Equal(t, "https://pds.test", w.repo(bob).PDS)

	w.update("relay.test", store.RepoUpdate{DID: alice, Rev: pointer(rev(4)), Data: pointer(cid(40)), Sync: pointer(store.Synchronized)})
	got = w.repo(alice)
	require.Equal(t, rev(5), got.Rev, "an older rev is a replay")
	require.Equal(t, cid(50), got.Data)
	require.Equal(t, store.Synchronized, got.Sync)
	require.Empty(t, got.Reason)

	w.update("relay.test", store.RepoUpdate{DID: alice, Rev: pointer(rev(3)), Data: pointer(cid(30)), Resync: true})
	got = w.repo(alice)
	require.Equal(t, rev(3), got.Rev, "unless the repository was fetched whole")
	require.Equal(t, cid(30), got.Data)
}

func TestInactiveRepositoriesVanishFromEveryRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, post, seen := key(alice, layers, "one"), key(alice, posts, "one"), key(bob, expressions, "seen")
	c := put(k, 1)
	c.Refs = []record.Ref{{Path: "expression", Target: seen.URI()}}
	c.Filter = map[string]any{"expression": seen.String()}
	w.apply(c, put(post, 1), put(seen, 1))
	tables := store.NewTables(w.Pool)
	require.NoError(t, tables.ReplaceAnnotations(t.Context(), []store.Layer{{Key: k, Version: 1, Rows: []record.Annotation{{Label: "x"}}}}))

	reads := map[string]func() int{
		"Get":     func() int { _, err := w.reader.Get(t.Context(), k); return found(t, err) },
		"foreign": func() int { _, err := w.reader.Get(t.Context(), post); return found(t, err) },
		"Load": func() int {
			m, err := w.reader.Load(t.Context(), []record.Key{k, post})
			return counted(t, len(m), err)
		},
		"Present": func() int {
			m, err := w.reader.Present(t.Context(), []record.Key{k, post})
			return counted(t, len(m), err)
		},
		"List": func() int {
			p, err := w.reader.List(t.Context(), store.Query{Collection: layers, Limit: 5})
			return counted(t, len(p.Records), err)
		},
		"List by repository": func() int {
			p, err := w.reader.List(t.Context(), store.Query{Collection: layers, Limit: 5, Repo: pointer(alice)})
			return counted(t, len(p.Records), err)
		},
		"List by property": func() int {
			p, err := w.reader.List(t.Context(), store.Query{
				Collection: layers, Limit: 5, Match: []store.Match{{Name: "expression", Values: []string{seen.String()}}},
			})
			return counted(t, len(p.Records), err)
		},
		"ListForeign": func() int {
			p, err := w.reader.ListForeign(t.Context(), store.ForeignQuery{Limit: 5})
			return counted(t, len(p.Records), err)
		},
		"ListForeign by prefix": func() int {
			p, err := w.reader.ListForeign(t.Context(), store.ForeignQuery{Limit: 5, CollectionPrefix: pointer("app.")})
			return counted(t, len(p.Records), err)
		},
		"Scan": func() int {
			r, err := w.reader.Scan(t.Context(), layers, record.Key{}, 5)
			return counted(t, len(r), err)
		},
		"ScanVersions": func() int {
			r, err := w.reader.ScanVersions(t.Context(), layers, record.Key{}, 5)
			return counted(t, len(r), err)
		},
		"Referrers": func() int {
			r, err := w.reader.Referrers(t.Context(), seen.String(), store.Referrer{}, 5)
			return counted(t, len(r), err)
		},
		"Annotations": func() int {
			r, err := w.reader.Annotations(t.Context(), k)
			return counted(t, len(r), err)
		},
	}
	for _, status := range []string{"deactivated", "suspended", "takendown", "deleted", "throttled"} {
		w.update("relay.test", store.RepoUpdate{DID: alice, Active: pointer(false), Status: pointer(status)})
		require.Equal(t, status, w.repo(alice).Status)
		for name, read := range reads {
			require.Zero(t, read(), "%s of a repository that is %s", name, status)
		}
		w.update("relay.test", store.RepoUpdate{DID: alice, Active: pointer(true), Status: pointer("active")})
		for name, read := range reads {
			require.Positive(t, read(), "%s after it was %s", name, status)
		}
	}
}

func found(t *testing.T, err error) int {
	t.Helper()
	if err != nil {
		require.ErrorIs(t, err, store.ErrNotFound)
		return 0
	}
	return 1
}

func counted(t *testing.T, n int, err error) int {
	t.Helper()
	require.NoError(t, err)
	return n
}

func TestAReplayedAccountEventUndoesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "one"), 1))
	event := func(host string, seq int64, active bool) {
		w.update(host, store.RepoUpdate{DID: alice, Active: &active, Status: pointer(fmt.Sprint("seq", seq)), Seq: &seq})
	}
	event("relay.test", 10, false)
	event("relay.test", 20, true)
	event("relay.test", 10, false)
	require.True(t, w.repo(alice).Active)
	require.Equal(t, "seq20", w.repo(alice).Status)
	event("other.test", 5, false)
	require.False(t, w.repo(alice).Active, "another host counts by itself")

	w.update("other.test",
		store.RepoUpdate{DID: alice, Active: pointer(true), Seq: pointer(int64(7))},
		store.RepoUpdate{DID: alice, Active: pointer(false), Seq: pointer(int64(6))})
	require.True(t, w.repo(alice).Active, "also inside one batch")
}

func TestAnAccountEventOfAnotherHostCountsByItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(put(key(alice, expressions, "one"), 1))
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	event := func(host string, seq int64, minute int, status string) {
		w.update(host, store.RepoUpdate{
			DID: alice, Active: pointer(status == "active"), Status: &status, Seq: &seq, Time: noon.Add(time.Duration(minute) * time.Minute),
		})
	}
	event("a.test", 20, 20, "active")
	event("b.test", 5, 15, "suspended")
	require.Equal(t, "active", w.repo(alice).Status, "the other host is behind")
	event("b.test", 5, 20, "suspended")
	require.Equal(t, "active", w.repo(alice).Status, "the same event")
	event("b.test", 6, 25, "takendown")
	require.Equal(t, "takendown", w.repo(alice).Status)
	require.False(t, w.repo(alice).Active)
	event("a.test", 10, 10, "active")
	event("a.test", 21, 24, "active")
	require.Equal(t, "takendown", w.repo(alice).Status, "a replay of the first host")
	event("b.test", 7, 3, "active")
	require.Equal(t, "active", w.repo(alice).Status, "a host is believed about its own order, whatever its clock says")
	event("b.test", 1, 40, "suspended")
	require.Equal(t, "suspended", w.repo(alice).Status, "a host that has begun a new sequence")
}

func TestAHandleBelongsToWhoWasLastSeenWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	resolve := func(handle syntax.Handle) syntax.DID {
		did, err := w.reader.ResolveHandle(t.Context(), handle)
		if err != nil {
			require.ErrorIs(t, err, store.ErrNotFound)
		}
		return did
	}
	handle := func(did syntax.DID, name string) store.RepoUpdate {
		return store.RepoUpdate{DID: did, Handle: pointer(syntax.Handle(name))}
	}
	w.update("", handle(alice, "a.test"), handle(bob, "b.test"))
	require.Equal(t, alice, resolve("A.test"))
	require.Equal(t, bob, resolve("b.test"))

	w.update("", handle(alice, "b.test"), handle(bob, "a.test"))
	require.Equal(t, bob, resolve("a.test"), "exchanged")
	require.Equal(t, alice, resolve("b.test"))

	w.update("", handle(alice, "a.test"))
	require.Equal(t, alice, resolve("a.test"))
	require.Empty(t, w.repo(bob).Handle)
	require.Empty(t, resolve("b.test"))

	w.update("", handle(alice, "handle.invalid"), handle(bob, ""))
	require.Empty(t, w.repo(alice).Handle)
	require.Empty(t, resolve("a.test"))
	require.Empty(t, resolve("handle.invalid"))

	w.update("", handle(alice, "same.test"), handle(bob, "same.test"))
	require.NotEmpty(t, resolve("same.test"))
}

func TestTrackedDIDsGivesAllInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var updates []store.RepoUpdate
	for i := range 10_500 { // more than one page
		updates = append(updates, store.RepoUpdate{DID: syntax.DID(fmt.Sprintf("did:plc:%024d", i))})
	}
	long := syntax.DID("did:web:" + strings.ToLower(random(2000)))
	w.update("", append(updates, store.RepoUpdate{DID: long})...)
	var got []syntax.DID
	require.NoError(t, w.writer.TrackedDIDs(t.Context(), func(did syntax.DID) error { got = append(got, did); return nil }))
	require.Len(t, got, 10_501)
	require.IsIncreasing(t, got)

	stop := fmt.Errorf("stop")
	require.ErrorIs(t, w.writer.TrackedDIDs(t.Context(), func(syntax.DID) error { return stop }), stop)
}
