package simulate

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

const note = syntax.NSID("com.example.note")

func newTestWorld(t *testing.T, cfg Config) *World {
	t.Helper()
	w, err := NewWorld(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func createAccount(t *testing.T, w *World, name string) syntax.DID {
	t.Helper()
	did, err := w.CreateAccount(name)
	require.NoError(t, err)
	return did
}

func noteValue(text string) map[string]any {
	return map[string]any{"$type": string(note), "text": text}
}

func frames(t *testing.T, w *World, after int64) []Frame {
	t.Helper()
	found, err := w.Frames(after, 1<<30)
	require.NoError(t, err)
	return found
}

func event(t *testing.T, f Frame) *stream.XRPCStreamEvent {
	t.Helper()
	var e stream.XRPCStreamEvent
	require.NoError(t, e.Deserialize(bytes.NewReader(f.Data)))
	return &e
}

func lastCommit(t *testing.T, w *World) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	all := frames(t, w, 0)
	c := event(t, all[len(all)-1]).RepoCommit
	require.NotNil(t, c)
	return c
}

// requireVerified checks a commit event as a strict consumer does.
func requireVerified(t *testing.T, w *World, e *comatproto.SyncSubscribeRepos_Commit) {
	t.Helper()
	ctx := context.Background()
	_, err := repo.VerifyCommitMessage(ctx, e)
	require.NoError(t, err, "event %d", e.Seq)
	commit, _, err := repo.LoadCommitFromCAR(ctx, bytes.NewReader(e.Blocks))
	require.NoError(t, err)
	public, err := atcrypto.ParsePublicMultibase(w.accounts[syntax.DID(e.Repo)].key.multibase())
	require.NoError(t, err)
	require.NoError(t, commit.VerifySignature(public), "event %d", e.Seq)
}

// randomWrites makes up to n writes that fit the paths in have, and keeps have in step.
func randomWrites(r *rand.Rand, have map[string]bool, keys *[]string, n int) []Write {
	var writes []Write
	used := map[string]bool{}
	for range 1 + r.IntN(n) {
		value := noteValue(fmt.Sprint(r.Uint64()))
		if len(*keys) == 0 || r.IntN(3) == 0 {
			rkey := fmt.Sprintf("n%06d", r.IntN(1_000_000))
			if !have[rkey] && !used[rkey] {
				writes, have[rkey], used[rkey] = append(writes, Create(note, syntax.RecordKey(rkey), value)), true, true
				*keys = append(*keys, rkey)
			}
			continue
		}
		i := r.IntN(len(*keys))
		rkey := (*keys)[i]
		if used[rkey] {
			continue
		}
		used[rkey] = true
		if r.IntN(2) == 0 {
			writes = append(writes, Update(note, syntax.RecordKey(rkey), value))
			continue
		}
		writes = append(writes, Delete(note, syntax.RecordKey(rkey)))
		delete(have, rkey)
		(*keys)[i] = (*keys)[len(*keys)-1]
		*keys = (*keys)[:len(*keys)-1]
	}
	return writes
}

func TestEveryCommitOfRandomWritesVerifies(t *testing.T) {
	quiet(t)
	for _, shape := range []struct{ begin, commits, writes int }{
		{0, 1500, 1}, {0, 600, 8}, {0, 60, 200}, {5000, 800, 1}, {5000, 300, 8}, {5000, 40, 200},
	} {
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, uint64(shape.writes)))
			w := newTestWorld(t, Config{Seed: uint64(shape.writes)})
			did := createAccount(t, w, "alice")
			have, keys := map[string]bool{}, []string{}
			var rev syntax.TID
			for len(keys) < shape.begin {
				var writes []Write
				for range maxWrites {
					rkey := fmt.Sprintf("b%06d", len(keys))
					writes, keys = append(writes, Create(note, syntax.RecordKey(rkey), noteValue(rkey))), append(keys, rkey)
					have[rkey] = true
				}
				_, err := w.Commit(did, writes...)
				require.NoError(t, err)
			}
			for range shape.commits {
				done, err := w.Commit(did, randomWrites(r, have, &keys, shape.writes)...)
				require.NoError(t, err)
				require.Greater(t, done.Rev, rev)
				rev = done.Rev
			}
			var before *comatproto.SyncSubscribeRepos_Commit
			for _, f := range frames(t, w, 0) {
				e := event(t, f).RepoCommit
				if e == nil {
					continue
				}
				requireVerified(t, w, e)
				if before != nil {
					require.NotNil(t, e.PrevData)
					require.Equal(t, before.Rev, *e.Since)
				}
				before = e
			}
			held := map[string]bool{}
			for e := range w.Records(View{}) {
				held[string(e.Key.Rkey)] = true
			}
			require.Equal(t, have, held)
			requireCanonical(t, w, did)
		})
	}
}

// requireCanonical builds the repository's tree anew: its shape must not depend on
// how it came about.
func requireCanonical(t *testing.T, w *World, did syntax.DID) {
	t.Helper()
	paths := map[string]cid.Cid{}
	tree := w.accounts[did].tree
	require.NoError(t, tree.Verify())
	require.NoError(t, tree.WriteToMap(paths))
	anew, err := mst.LoadTreeFromMap(paths)
	require.NoError(t, err)
	root, err := anew.RootCID()
	require.NoError(t, err)
	require.Equal(t, w.accounts[did].data, *root)
}

func TestCommitsRefuseWhatDoesNotFit(t *testing.T) {
	w := newTestWorld(t, Config{})
	did := createAccount(t, w, "alice")
	_, err := w.Commit(did, Create(note, "a", noteValue("1")))
	require.NoError(t, err)
	before := w.LastSeq()
	for want, writes := range map[error][]Write{
		ErrHasRecord: {Create(note, "a", noteValue("2"))},
		ErrNoRecord:  {Delete(note, "b")},
		ErrUnchanged: {Update(note, "a", noteValue("1"))},
		ErrTooBig:    make([]Write, maxWrites+1),
	} {
		_, err := w.Commit(did, append([]Write{}, writes...)...)
		require.ErrorIs(t, err, want)
	}
	require.Equal(t, before, w.LastSeq())
	_, err = w.Commit("did:plc:nobody", Delete(note, "a"))
	require.ErrorIs(t, err, ErrNoAccount)
	require.NoError(t, w.SetStatus(did, Deactivated))
	_, err = w.Commit(did, Delete(note, "a"))
	require.ErrorIs(t, err, ErrNotActive)
}

func TestAnEmptyCommitVerifies(t *testing.T) {
	w := newTestWorld(t, Config{})
	did := createAccount(t, w, "alice")
	_, err := w.Commit(did, Create(note, "a", noteValue("1")))
	require.NoError(t, err)
	_, err = w.Commit(did)
	require.NoError(t, err)
	e := lastCommit(t, w)
	require.Empty(t, e.Ops)
	requireVerified(t, w, e)
}

func TestSameSeedAndScriptGiveTheSameStream(t *testing.T) {
	play := func() []Frame {
		w := newTestWorld(t, Config{Seed: 11})
		r := rand.New(rand.NewPCG(1, 2))
		have, keys := map[string]bool{}, []string{}
		for _, name := range []string{"alice", "bola", "chen", "dora", "emeka", "fatima"} { // both curves among them
			did := createAccount(t, w, name)
			for range 20 {
				_, err := w.Commit(did, randomWrites(r, have, &keys, 3)...)
				require.NoError(t, err)
			}
			clear(have)
			keys = nil
			require.NoError(t, w.RotateKey(did))
			require.NoError(t, w.Sync(did))
		}
		return frames(t, w, 0)
	}
	require.Equal(t, play(), play())
}

func TestFaultsAreFound(t *testing.T) {
	ctx := context.Background()
	quiet(t)
	for name, c := range map[string]struct {
		fault Fault
		check func(*testing.T, *World, *comatproto.SyncSubscribeRepos_Commit)
	}{
		"forged": {ForgedSignature, func(t *testing.T, w *World, e *comatproto.SyncSubscribeRepos_Commit) {
			_, err := repo.VerifyCommitMessage(ctx, e)
			require.NoError(t, err, "only the signature is wrong")
			commit, _, err := repo.LoadCommitFromCAR(ctx, bytes.NewReader(e.Blocks))
			require.NoError(t, err)
			public, err := atcrypto.ParsePublicMultibase(w.accounts[syntax.DID(e.Repo)].key.multibase())
			require.NoError(t, err)
			require.Error(t, commit.VerifySignature(public))
		}},
		"prevData": {WrongPrevData, func(t *testing.T, _ *World, e *comatproto.SyncSubscribeRepos_Commit) {
			_, err := repo.VerifyCommitMessage(ctx, e)
			require.ErrorContains(t, err, "prevData")
		}},
		"block": {MissingBlock, func(t *testing.T, _ *World, e *comatproto.SyncSubscribeRepos_Commit) {
			_, err := repo.VerifyCommitMessage(ctx, e)
			require.Error(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWorld(t, Config{})
			did := createAccount(t, w, "alice")
			first, err := w.Commit(did, Create(note, "a", noteValue("1")))
			require.NoError(t, err)
			faulty, err := w.CommitFaulty(did, c.fault, Create(note, "b", noteValue("2")))
			require.NoError(t, err)
			c.check(t, w, lastCommit(t, w))
			next, err := w.Commit(did, Create(note, "c", noteValue("3")))
			require.NoError(t, err)
			requireVerified(t, w, lastCommit(t, w))
			if c.fault == ForgedSignature {
				require.Equal(t, first.Data, next.PrevData)
			} else {
				require.Equal(t, faulty.Data, next.PrevData)
			}
		})
	}
}

func TestADroppedCommitLeavesAGap(t *testing.T) {
	w := newTestWorld(t, Config{})
	did := createAccount(t, w, "alice")
	seq := w.LastSeq()
	dropped, err := w.CommitFaulty(did, Dropped, Create(note, "a", noteValue("1")))
	require.NoError(t, err)
	next, err := w.Commit(did, Create(note, "b", noteValue("2")))
	require.NoError(t, err)
	require.Equal(t, dropped.Rev, next.Since)
	got := frames(t, w, seq)
	require.Len(t, got, 1)
	require.Equal(t, seq+2, got[0].Seq)
}

func TestTruthFollowsAccountsAndHistory(t *testing.T) {
	w := newTestWorld(t, Config{})
	alice, bola := createAccount(t, w, "alice"), createAccount(t, w, "bola")
	first, err := w.Commit(alice, Create(note, "a", noteValue("1")))
	require.NoError(t, err)
	bad := Create(note, "bad", noteValue("x"))
	bad.Block, bad.Barred = []byte{0xff, 0x00}, true
	_, err = w.Commit(alice, Update(note, "a", noteValue("2")), bad)
	require.NoError(t, err)
	requireVerified(t, w, lastCommit(t, w)) // whatever the bytes, the commit is sound
	_, err = w.Commit(bola, Create(note, "b", noteValue("3")))
	require.NoError(t, err)

	require.Equal(t, []string{"a", "b"}, rkeys(w, View{}))
	require.Equal(t, []string{"a", "bad", "b"}, sortedLike(rkeys(w, View{Barred: true}), "a", "bad", "b"))
	require.Equal(t, []string{"a"}, rkeys(w, View{Through: first.Seq}))
	for e := range w.Records(View{Through: first.Seq}) {
		require.Equal(t, first.Ops[0].CID, e.CID)
		require.Equal(t, first.Ops[0].CBOR, e.CBOR)
	}
	require.NoError(t, w.SetStatus(alice, TakenDown))
	require.Equal(t, []string{"b"}, rkeys(w, View{}))
	require.Len(t, rkeys(w, View{Inactive: true}), 2)
	require.NoError(t, w.SetStatus(alice, Active))
	require.NoError(t, w.SetStatus(bola, Deleted))
	require.Equal(t, []string{"a"}, rkeys(w, View{Inactive: true}))
}

func rkeys(w *World, view View) []string {
	var found []string
	for e := range w.Records(view) {
		found = append(found, string(e.Key.Rkey))
	}
	return found
}

// sortedLike puts found into the order of want, as accounts sort by DID.
func sortedLike(found []string, want ...string) []string {
	var sorted []string
	for _, s := range want {
		for _, f := range found {
			if f == s {
				sorted = append(sorted, f)
			}
		}
	}
	return sorted
}

// quiet keeps indigo's verifier, which logs through the default logger, silent.
func quiet(t *testing.T) {
	t.Helper()
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}
