package replay_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/replay"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	alice    = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	notebook = syntax.NSID("org.example.field.notebook")
)

// lexicon is of a record type whose title has at most so many bytes.
func lexicon(t *testing.T, longest int) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load(fstest.MapFS{"notebook.json": {Data: fmt.Appendf(nil, `{"lexicon": 1, "id": %q, "defs": {
		"main": {"type": "record", "key": "any", "record": {"type": "object", "required": ["title"], "properties": {
			"title": {"type": "string", "maxLength": %d}}}}}}`, notebook, longest)}})
	require.NoError(t, err)
	return c
}

type world struct {
	t       *testing.T
	db      *storetest.Database
	writer  *store.Writer
	reader  *store.Reader
	letters *store.DeadLetters
	queue   *store.Resyncs
	resyncs []syntax.DID // asked for
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: storetest.New(t, store.Partition{Collection: notebook})}
	w.writer = w.db.Writer(t, store.Routes{notebook: {record.Search}})
	w.reader, w.letters = store.NewReader(w.db.Pool), store.NewDeadLetters(w.db.Pool)
	w.queue = store.NewResyncs(w.db.Pool)
	w.sync(store.Synchronized, rev(1))
	return w
}

func rev(n int) syntax.TID { return syntax.TID(fmt.Sprintf("3k%011d", n)) }

// sync sets the state of the repository.
func (w *world) sync(state store.SyncState, at syntax.TID) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: alice, Sync: &state, Rev: &at}}}))
}

// once puts the requested letters through with a lexicon.
func (w *world) once(c *catalog.Catalog) {
	w.t.Helper()
	r := replay.New(replay.Config{
		Catalog: c, Letters: w.letters, Apply: w.writer.Apply, Logger: slog.New(slog.DiscardHandler),
		Resync: func(ctx context.Context, did syntax.DID, reason string) error {
			w.resyncs = append(w.resyncs, did)
			_, err := w.queue.Add(ctx, []store.Wanted{{DID: did, Reason: reason}})
			return err
		},
	})
	require.NoError(w.t, r.Once(w.t.Context()))
}

// invalid adds the letter of a record with a title that is too long for five bytes.
func (w *world) invalid(rkey syntax.RecordKey, at syntax.TID) (record.Key, store.DeadLetter) {
	w.t.Helper()
	block, err := atdata.MarshalCBOR(map[string]any{"$type": string(notebook), "title": "too long"})
	require.NoError(w.t, err)
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	require.NoError(w.t, err)
	return record.Key{DID: alice, Collection: notebook, Rkey: rkey}, w.add(store.DeadLetter{
		Host: "relay.test", Seq: 1, DID: alice, Collection: notebook, Rkey: rkey, Rev: at, CID: syntax.CID(sum.String()),
		Stage: "validate", Class: "invalid", Reason: "as it was", Raw: block,
	})
}

func (w *world) add(letter store.DeadLetter) store.DeadLetter {
	w.t.Helper()
	require.NoError(w.t, w.letters.Add(w.t.Context(), []store.DeadLetter{letter}))
	list, err := w.letters.List(w.t.Context(), store.LetterFilter{Stage: letter.Stage}, 0, 1)
	require.NoError(w.t, err)
	require.Len(w.t, list, 1)
	return list[0]
}

func (w *world) request(f store.LetterFilter) {
	w.t.Helper()
	ids, err := w.letters.Request(w.t.Context(), f)
	require.NoError(w.t, err)
	require.NotEmpty(w.t, ids)
}

func (w *world) letter(id int64) store.DeadLetter {
	w.t.Helper()
	d, err := w.letters.Get(w.t.Context(), id)
	require.NoError(w.t, err)
	return d
}

func (w *world) gone(id int64) {
	w.t.Helper()
	_, err := w.letters.Get(w.t.Context(), id)
	require.ErrorIs(w.t, err, store.ErrNotFound)
}

func TestARecordIsStoredOnceItsLexiconAllowsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, d := w.invalid("a", rev(1))
	w.once(lexicon(t, 100))
	require.False(t, w.letter(d.ID).Requested, "nobody asked")

	w.request(store.LetterFilter{Collection: notebook})
	require.True(t, w.letter(d.ID).Requested)
	w.once(lexicon(t, 5))
	failed := w.letter(d.ID)
	require.False(t, failed.Requested)
	require.Equal(t, 1, failed.Attempts)
	require.Equal(t, "title", failed.Path)
	require.NotEqual(t, "as it was", failed.Reason)
	require.NotEmpty(t, failed.Outcome)

	w.request(store.LetterFilter{IDs: []int64{d.ID}})
	w.once(lexicon(t, 100))
	w.gone(d.ID)
	got, err := w.reader.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, d.CID, got.CID)
	require.Equal(t, rev(1), got.Rev)
	require.JSONEq(t, `{"$type": "org.example.field.notebook", "title": "too long"}`, string(got.Value))
	pending, err := store.NewOutbox(w.db.Pool).Claim(t.Context(), record.Search, 10, 1)
	require.NoError(t, err)
	require.Len(t, pending, 1)
}

// TestARepositoryOutOfStepKeepsItsLetters: what was missed may have deleted the record.
func TestARepositoryOutOfStepKeepsItsLetters(t *testing.T) {
	t.Parallel()
	for _, state := range []store.SyncState{store.Desynchronized, store.Resyncing} {
		w := newWorld(t)
		key, d := w.invalid("a", rev(1))
		w.sync(state, rev(1))
		w.request(store.LetterFilter{})
		w.once(lexicon(t, 100))
		_, err := w.reader.Get(t.Context(), key)
		require.ErrorIs(t, err, store.ErrNotFound)
		left := w.letter(d.ID)
		require.True(t, left.Requested, "it waits")
		require.Contains(t, left.Outcome, "synchronized")

		w.sync(store.Synchronized, rev(1))
		w.once(lexicon(t, 100))
		w.gone(d.ID)
		_, err = w.reader.Get(t.Context(), key)
		require.NoError(t, err)
	}
}

// TestAFetchSettlesWhatStoodForTheRepository: only what the fetch met itself stays.
func TestAFetchSettlesWhatStoodForTheRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, missed := w.invalid("deleted-since", rev(1))
	commit := w.add(store.DeadLetter{Host: "relay.test", Seq: 9, DID: alice, Stage: "verify", Class: "signature", Reason: "does not hold", Raw: []byte("frame")})
	frame := w.add(store.DeadLetter{Host: "relay.test", Stage: "frame", Class: "malformed", Reason: "no CBOR", Raw: []byte("frame")})
	projection := w.add(store.DeadLetter{DID: alice, Collection: notebook, Rkey: "p", Rev: rev(1), Stage: "project:search", Class: "permanent", Reason: "no"})
	w.request(store.LetterFilter{Stage: "verify"})
	w.request(store.LetterFilter{Stage: "frame"})
	w.once(lexicon(t, 5))
	require.Equal(t, []syntax.DID{alice}, w.resyncs)
	w.once(lexicon(t, 5))
	require.Len(t, w.resyncs, 1, "it is asked for once")
	require.True(t, w.letter(commit.ID).Requested)
	require.Contains(t, w.letter(frame.ID).Outcome, "no repository")

	require.NoError(t, w.queue.Postpone(t.Context(), alice, time.Now().Add(time.Hour), "pds.test", "connection refused"))
	w.once(lexicon(t, 5))
	require.Contains(t, w.letter(commit.ID).Outcome, "connection refused")
	require.NoError(t, w.queue.Remove(t.Context(), alice))
	w.once(lexicon(t, 5))
	require.False(t, w.letter(commit.ID).Requested, "given up")
	w.request(store.LetterFilter{Stage: "verify"})
	w.once(lexicon(t, 5))
	require.Len(t, w.resyncs, 2)

	state, at := store.Synchronized, rev(5)
	_, again := w.invalid("still-there", rev(5))
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: alice, Sync: &state, Rev: &at, Resync: true}}}))
	w.gone(missed.ID)
	w.gone(commit.ID)
	w.letter(again.ID)
	w.letter(projection.ID)
	w.letter(frame.ID)
}

func TestAProjectionIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	letter := store.DeadLetter{DID: alice, Collection: notebook, Rkey: "p", Rev: rev(1), Stage: "project:search", Class: "permanent", Reason: "first"}
	d := w.add(letter)
	unrouted := letter
	unrouted.Stage = "project:graph"
	stranger := w.add(unrouted)
	outbox := store.NewOutbox(w.db.Pool)
	carryOut := func(fails bool) {
		pending, err := outbox.Claim(t.Context(), record.Search, 10, 1)
		require.NoError(t, err)
		require.Len(t, pending, 1)
		require.Equal(t, syntax.RecordKey("p"), pending[0].Key.Rkey)
		if fails {
			letter.Reason = "second"
			require.NoError(t, w.letters.Add(t.Context(), []store.DeadLetter{letter}))
		}
		require.NoError(t, outbox.Done(t.Context(), record.Search, pending))
	}
	w.request(store.LetterFilter{})
	w.once(lexicon(t, 5))
	w.once(lexicon(t, 5))
	require.True(t, w.letter(d.ID).Requested, "the row is still there")
	require.Contains(t, w.letter(stranger.ID).Outcome, "not configured")
	carryOut(true)
	w.once(lexicon(t, 5))
	failed := w.letter(d.ID)
	require.Equal(t, []any{false, 1, "second"}, []any{failed.Requested, failed.Attempts, failed.Reason})

	w.request(store.LetterFilter{IDs: []int64{d.ID}})
	w.once(lexicon(t, 5))
	carryOut(false)
	w.once(lexicon(t, 5))
	w.gone(d.ID)
}

// TestBytesThatAreNotTheRecordsAreRefused alters a letter behind the store's back.
func TestBytesThatAreNotTheRecordsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, d := w.invalid("a", rev(1))
	forged, err := atdata.MarshalCBOR(map[string]any{"$type": string(notebook), "title": "x"})
	require.NoError(t, err)
	_, err = w.db.Pool.Exec(t.Context(), "UPDATE dead_letters SET raw = $1", forged)
	require.NoError(t, err)
	w.request(store.LetterFilter{})
	w.once(lexicon(t, 100))
	require.Contains(t, w.letter(d.ID).Outcome, "CID")
	_, err = w.reader.Get(t.Context(), key)
	require.ErrorIs(t, err, store.ErrNotFound)
}
