package indexer_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestGeneratedNetworkIsIndexed follows corpora of all types with edits and foreign
// traffic between them, and stops and starts on the way.
func TestGeneratedNetworkIsIndexed(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{Seed: 11}, simulate.ServerConfig{})
	generator, err := simulate.NewGenerator(r.world, simulate.Script{Records: 1500, PerCommit: 5, Edits: 30, Foreign: 30})
	require.NoError(t, err)
	defer generator.Stop()
	written := make(chan error, 1)
	go func() { written <- generator.Run(context.Background(), 0) }()
	for range 3 {
		r.start()
		r.caughtUp()
		r.end()
	}
	require.NoError(t, <-written)
	r.start()
	r.caughtUp()
	require.NotEmpty(t, r.truth())
	r.requireTruth()
	require.Empty(t, r.letters())
	for _, account := range r.world.Accounts() {
		repos, err := r.writer.LoadRepos(t.Context(), r.world.Accounts())
		require.NoError(t, err)
		if repo, followed := repos[account]; followed {
			require.Equal(t, store.Synchronized, repo.Sync, account)
		} else {
			require.Empty(t, r.rkeys(account))
		}
	}
}

// TestValueIsVerbatim keeps what the record says, byte for byte in its JSON form.
func TestValueIsVerbatim(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	value := named("NUL \x00, quote \", <html> & \u2028 and 𒀀")
	value["sizeHint"] = int64(9007199254740991)
	r.commit(amara, simulate.Create(corpus, "a", value))
	r.start()
	r.caughtUp()
	stored := string(r.value(record.Key{DID: amara, Collection: corpus, Rkey: "a"}))
	require.Contains(t, stored, `\u0000`)
	require.Contains(t, stored, `9007199254740991`)
	require.Contains(t, stored, `<html> & `)
	require.Contains(t, stored, `𒀀`)
}

func TestInvalidRecordIsADeadLetterAndReplacesWhatWasThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	bad := named("x")
	delete(bad, "name")
	r.commit(amara, simulate.Create(corpus, "kept", named("kept")), simulate.Create(corpus, "spoilt", named("good")))
	r.commit(amara, simulate.Write{Action: record.Update, Collection: corpus, Rkey: "spoilt", Value: bad, Barred: true},
		simulate.Create(corpus, "beside", named("beside")))
	r.start()
	r.caughtUp()
	require.Equal(t, []string{"beside", "kept"}, r.rkeys(amara))
	r.requireTruth()
	letters := r.letters()
	require.Len(t, letters, 1)
	require.Equal(t, "validate", letters[0].Stage)
	require.Equal(t, "name", letters[0].Path)
	require.EqualValues(t, "spoilt", letters[0].Rkey)
	require.NotEmpty(t, letters[0].Raw)
	require.NotEmpty(t, letters[0].Reason)
}

// TestBrokenChains gives one repository each kind of fault, and sees that it is
// left desynchronized with what held before, while another one goes on.
func TestBrokenChains(t *testing.T) {
	t.Parallel()
	faults := map[string]struct {
		fault simulate.Fault
		class string // of the dead letter; empty where the event that breaks the chain holds in itself
		heals bool   // the next commit goes on where the one before the fault was
	}{
		"forged":       {simulate.ForgedSignature, "signature", true},
		"prevdata":     {simulate.WrongPrevData, "tree", false},
		"missingblock": {simulate.MissingBlock, "blocks", false},
		"dropped":      {simulate.Dropped, "", false},
	}
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	bystander := r.account("bystander")
	r.start()
	for name, f := range faults {
		account := r.account(name)
		r.commit(account, simulate.Create(corpus, "before", named("before")))
		_, err := r.world.CommitFaulty(account, f.fault, simulate.Create(corpus, "faulty", named("faulty")))
		require.NoError(t, err)
		r.commit(account, simulate.Create(corpus, "after", named("after")))
		r.commit(bystander, simulate.Create(corpus, rkey(int(r.world.LastSeq())), named(name)))
		r.caughtUp()

		repo := r.repo(account)
		if f.heals {
			require.Equal(t, store.Synchronized, repo.Sync, name)
			require.Equal(t, []string{"after", "before"}, r.rkeys(account), name)
		} else {
			require.Equal(t, store.Desynchronized, repo.Sync, name)
			require.NotEmpty(t, repo.Reason, name)
			require.Equal(t, []string{"before"}, r.rkeys(account), name)
		}
		letters, err := store.NewDeadLetters(r.db.Pool).List(t.Context(), store.LetterFilter{DID: account}, 0, 10)
		require.NoError(t, err)
		if f.class == "" {
			require.Empty(t, letters, name)
			continue
		}
		require.Len(t, letters, 1, name)
		require.Equal(t, "verify", letters[0].Stage, name)
		require.Equal(t, f.class, letters[0].Class, name)
		require.NotEmpty(t, letters[0].Raw, name)
	}
	require.Len(t, r.rkeys(bystander), len(faults))
	require.Equal(t, store.Synchronized, r.repo(bystander).Sync)
}

// TestAHiddenGap leaves a commit out and has the next one say that it follows the one
// before: since is not signed, but the tree that a commit changes is.
func TestAHiddenGap(t *testing.T) {
	t.Parallel()
	var network fault.Network
	r := newRig(t, simulate.Config{}, network.Config(simulate.ServerConfig{}))
	account := r.account("amara")
	before, err := r.world.Commit(account, simulate.Create(corpus, "before", named("before")))
	require.NoError(t, err)
	hidden := r.world.LastSeq() + 1
	drop, splice := fault.Drop(fault.At(hidden)), fault.Splice(fault.At(hidden+1), string(before.Rev))
	network.Add(drop, splice)
	r.start()
	r.commit(account, simulate.Create(corpus, "hidden", named("hidden")))
	r.commit(account, simulate.Create(corpus, "after", named("after")))
	r.caughtUp()
	require.EqualValues(t, 1, drop.Fired())
	require.EqualValues(t, 1, splice.Fired())
	require.Equal(t, store.Desynchronized, r.repo(account).Sync)
	require.Equal(t, []string{"before"}, r.rkeys(account))
}

// TestACommitTwice has a host send each commit of a repository twice: the second is
// no break of the chain.
func TestACommitTwice(t *testing.T) {
	t.Parallel()
	var network fault.Network
	r := newRig(t, simulate.Config{}, network.Config(simulate.ServerConfig{}))
	twice := fault.Duplicate(func(simulate.Frame) bool { return true })
	network.Add(twice)
	account := r.account("amara")
	r.start()
	for _, name := range []string{"one", "three", "two"} {
		r.commit(account, simulate.Create(corpus, syntax.RecordKey(name), named(name)))
	}
	r.caughtUp()
	require.GreaterOrEqual(t, twice.Fired(), int64(3))
	require.Equal(t, store.Synchronized, r.repo(account).Sync)
	require.Equal(t, []string{"one", "three", "two"}, r.rkeys(account))
}

// TestCommitsOfOtherCollectionsKeepTheChain has a followed repository commit records
// that are not followed in between: links of the chain all the same.
func TestCommitsOfOtherCollectionsKeepTheChain(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	post := func(i int) simulate.Write {
		return simulate.Create("app.example.feed.post", rkey(i), map[string]any{"$type": "app.example.feed.post", "text": "hello"})
	}
	r.commit(amara, post(0))
	r.start()
	for i := 1; i < 200; i += 3 {
		r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
		r.commit(amara, post(i+1))
		r.commit(amara, post(i+2))
	}
	r.caughtUp()
	r.requireTruth()
	require.Equal(t, store.Synchronized, r.repo(amara).Sync)
}

// TestKeyRotationAndHandleChange keeps following an account through both.
func TestKeyRotationAndHandleChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.start()
	r.caughtUp()
	require.NoError(t, r.world.RotateKey(amara))
	r.commit(amara, simulate.Create(corpus, "b", named("b")))
	require.NoError(t, r.world.ChangeHandle(amara, "ada"))
	r.commit(amara, simulate.Create(corpus, "c", named("c")))
	r.caughtUp()
	require.Equal(t, []string{"a", "b", "c"}, r.rkeys(amara))
	want, err := r.world.Handle(amara)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.repo(amara).Handle == want }, patient, tick, "handle %s", want)
	require.NotEmpty(t, r.repo(amara).PDS)
}

func TestAccountStatusIsRecordedAndHonoured(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.start()
	r.caughtUp()
	reader := store.NewReader(r.db.Pool)
	key := record.Key{DID: amara, Collection: corpus, Rkey: "a"}
	for _, status := range []simulate.Status{simulate.Deactivated, simulate.Active, simulate.TakenDown, simulate.Active, simulate.Suspended} {
		require.NoError(t, r.world.SetStatus(amara, status))
		r.caughtUp()
		_, err := reader.Get(t.Context(), key)
		if status == simulate.Active {
			require.NoError(t, err)
			require.Equal(t, "active", r.repo(amara).Status)
			continue
		}
		require.ErrorIs(t, err, store.ErrNotFound)
		require.EqualValues(t, status, r.repo(amara).Status)
	}
}

// TestGarbageDoesNotStopTheStream puts hostile frames between good ones.
func TestGarbageDoesNotStopTheStream(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(3, 4))
	sent := 0
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{Alter: func(frame simulate.Frame) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		sent++
		garbage := make([]byte, random.IntN(200))
		for i := range garbage {
			garbage[i] = byte(random.Uint32())
		}
		cut := append([]byte(nil), frame.Data[:random.IntN(len(frame.Data))]...)
		return [][]byte{garbage, cut, make([]byte, 6_000_000*(sent%10/9)), frame.Data}
	}})
	amara := r.account("amara")
	r.start()
	for i := range 30 {
		r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
	}
	r.caughtUp()
	r.requireTruth()
	mu.Lock()
	defer mu.Unlock()
	require.Greater(t, sent, 30)
	letters := r.letters()
	require.NotEmpty(t, letters)
	require.True(t, slices.ContainsFunc(letters, func(l store.DeadLetter) bool { return l.Stage == "frame" }))
	require.True(t, slices.ContainsFunc(letters, func(l store.DeadLetter) bool { return strings.Contains(l.Reason, "6000000 bytes") }))
}

// TestSecondIndexerStandsBy starts two, ends the first, and sees the second take over.
func TestSecondIndexerStandsBy(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	r.start()
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.caughtUp()

	second := *r
	second.writer = store.NewWriter(r.db.Pool, nil, discard)
	second.start()
	r.commit(amara, simulate.Create(corpus, "b", named("b")))
	r.caughtUp()
	require.ErrorIs(t, second.writer.Apply(t.Context(), store.Batch{}), store.ErrLockLost, "only one may write")

	r.end()
	r.commit(amara, simulate.Create(corpus, "c", named("c")))
	second.caughtUp()
	second.requireTruth()
	second.end()
}

// TestLostLockIsTakenAgain ends the writer's session in the database under load.
func TestLostLockIsTakenAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	r.start()
	ended := 0
	for i := range 200 {
		r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
		if i%50 == 25 {
			r.caughtUp()
			var n int
			require.NoError(t, r.db.Pool.QueryRow(t.Context(), `
				SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name LIKE '%writer'`).Scan(&n))
			ended += n
		}
	}
	r.caughtUp()
	require.Equal(t, 4, ended, "the fault did not happen")
	r.requireTruth()
}
