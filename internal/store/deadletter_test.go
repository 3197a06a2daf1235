package store_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// invalid is the dead letter of a record in the nth commit.
func invalid(k record.Key, n int) store.DeadLetter {
	return store.DeadLetter{
		Host: "relay.test", Seq: int64(n), DID: k.DID, Collection: k.Collection, Rkey: k.Rkey, Rev: rev(n), CID: cid(n),
		Stage: "validate", Class: "invalid", Path: "text", Reason: "is missing", Expected: "string", Received: "null", Raw: []byte{0xa1, 0, 0xff},
	}
}

func (w *world) letters(f store.LetterFilter) []store.DeadLetter {
	w.t.Helper()
	list, err := store.NewDeadLetters(w.Pool).List(w.t.Context(), f, 0, 100)
	require.NoError(w.t, err)
	return list
}

func TestDeadLettersAreKeptListedAndDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	letters := store.NewDeadLetters(w.Pool)
	a, b := invalid(key(alice, expressions, "a"), 1), invalid(key(bob, layers, "b"), 2)
	frame := store.DeadLetter{Host: "relay.test", Stage: "frame", Class: "malformed", Reason: "nul \x00 and \xff", Raw: []byte("x")}
	huge := store.DeadLetter{Host: "relay.test", Seq: 9, Stage: "frame", DID: "not\x00a DID", Reason: strings.Repeat("ẹ", 100_000)}
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Cursor: 2, DeadLetters: []store.DeadLetter{a, b, frame}}))
	require.NoError(t, letters.Add(t.Context(), []store.DeadLetter{huge}))

	all := w.letters(store.LetterFilter{})
	require.Len(t, all, 4)
	got := all[3]
	require.False(t, got.CreatedAt.IsZero())
	a.ID, a.CreatedAt = got.ID, got.CreatedAt
	require.Equal(t, a, got, "the oldest is last")
	require.Equal(t, "nul \uFFFD and \uFFFD", all[1].Reason)
	require.LessOrEqual(t, len(all[0].Reason), 8<<10+2)

	require.Len(t, w.letters(store.LetterFilter{Stage: "validate"}), 2)
	require.Len(t, w.letters(store.LetterFilter{Class: "malformed"}), 1)
	require.Len(t, w.letters(store.LetterFilter{DID: alice}), 1)
	require.Len(t, w.letters(store.LetterFilter{Collection: layers}), 1)
	require.Empty(t, w.letters(store.LetterFilter{Collection: layers, DID: alice}))
	page, err := letters.List(t.Context(), store.LetterFilter{}, all[1].ID, 1)
	require.NoError(t, err)
	require.Equal(t, all[2:3], page)

	one, err := letters.Get(t.Context(), a.ID)
	require.NoError(t, err)
	require.Equal(t, a, one)
	n, err := letters.Delete(t.Context(), store.LetterFilter{IDs: []int64{a.ID, 12345}})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	_, err = letters.Get(t.Context(), a.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestTheSameFailureMetAgainIsTheSameLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "a")
	letter := invalid(k, 1)
	elsewhere := letter
	elsewhere.Host, elsewhere.Seq, elsewhere.Reason = "other.test", 99, "is still missing"
	later, projection := invalid(k, 2), letter
	projection.Stage = "search"
	event, next := letter, letter
	event.Rkey, event.Collection, next.Rkey, next.Collection = "", "", "", ""
	next.Seq = 2
	batch := store.Batch{DeadLetters: []store.DeadLetter{letter, elsewhere, later, projection, event, next}}
	for range 2 {
		require.NoError(t, w.writer.Apply(t.Context(), batch))
		require.Len(t, w.letters(store.LetterFilter{}), 5)
	}
	require.Equal(t, "is missing", w.letters(store.LetterFilter{Stage: "search"})[0].Reason)
}

func TestANewerChangeOfTheRecordSettlesItsDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, other := key(alice, expressions, "a"), key(alice, expressions, "b")
	w.apply(put(k, 1))

	// An invalid record takes the place of a valid one: the letter comes with the delete.
	batch := store.Batch{Changes: []store.Change{remove(k, 2)}, DeadLetters: []store.DeadLetter{invalid(k, 2), invalid(other, 2)}}
	for range 2 {
		require.NoError(t, w.writer.Apply(t.Context(), batch))
		require.Len(t, w.letters(store.LetterFilter{}), 2, "a replay leaves it alone")
	}
	w.apply(put(k, 1))
	require.Len(t, w.letters(store.LetterFilter{}), 2, "so does what is older")

	w.apply(put(k, 3))
	require.Len(t, w.letters(store.LetterFilter{}), 1)
	require.Equal(t, other.Rkey, w.letters(store.LetterFilter{})[0].Rkey)
	w.apply(remove(other, 3))
	require.Empty(t, w.letters(store.LetterFilter{}), "a delete of what was never stored settles it too")
}

func TestADeadLetterIsPutThroughAgainOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "a")
	later, synchronized := rev(9), store.Synchronized
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{
		DeadLetters: []store.DeadLetter{invalid(k, 2)},
		Repos:       []store.RepoUpdate{{DID: alice, Rev: &later, Sync: &synchronized}}, // the repository has gone on since
	}))
	replay := put(k, 2)
	replay.DeadLetter = w.letters(store.LetterFilter{})[0].ID
	w.apply(replay)
	got, err := w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, rev(2), got.Rev)
	require.Empty(t, w.letters(store.LetterFilter{}))

	w.apply(remove(k, 10))
	w.apply(replay)
	_, err = w.reader.Get(t.Context(), k)
	require.ErrorIs(t, err, store.ErrNotFound, "the letter is gone, and so is the record")

	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{DeadLetters: []store.DeadLetter{invalid(k, 11)}}))
	replay = put(k, 11)
	replay.DeadLetter = w.letters(store.LetterFilter{})[0].ID
	w.apply(put(k, 12), replay)
	got, err = w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, rev(12), got.Rev, "overtaken")
}

// While a repository is out of step, what it will hold is not known: the fetch decides.
func TestADeadLetterWaitsForItsRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := key(alice, expressions, "a")
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{
		DeadLetters: []store.DeadLetter{invalid(k, 2)}, Repos: []store.RepoUpdate{w.state(alice, store.Desynchronized)},
	}))
	replay := put(k, 2)
	replay.DeadLetter = w.letters(store.LetterFilter{})[0].ID
	w.apply(replay)
	_, err := w.reader.Get(t.Context(), k)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Len(t, w.letters(store.LetterFilter{}), 1, "it is there still, to be put through again")

	w.update("relay", w.state(alice, store.Synchronized))
	w.apply(replay)
	_, err = w.reader.Get(t.Context(), k)
	require.NoError(t, err)
	require.Empty(t, w.letters(store.LetterFilter{}))
}
