package verify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

const note = syntax.NSID("pub.layers.corpus.corpus")

// network is a simulated world with one account, and a verifier that learns keys from it.
type network struct {
	world    *simulate.World
	did      syntax.DID
	verifier *verify.Verifier
	read     int64 // the last frame taken
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	world, err := simulate.NewWorld(simulate.Config{Seed: 7})
	require.NoError(t, err)
	server := simulate.NewServer(world, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { _ = server.Stop(); _ = world.Close() })
	did, err := world.CreateAccount("amara")
	require.NoError(t, err)
	dir := directory.New(directory.Config{PLCURL: server.URL(), AllowPrivate: true})
	return &network{world: world, did: did, verifier: verify.New(dir)}
}

// events decodes the frames that have come since the last call.
func (n *network) events(t testing.TB) []firehose.Event {
	t.Helper()
	var out []firehose.Event
	for {
		frames, err := n.world.Frames(n.read, 100)
		require.NoError(t, err)
		if len(frames) == 0 {
			return out
		}
		for _, f := range frames {
			event, err := firehose.Frame{Data: f.Data, Size: int64(len(f.Data))}.Decode()
			require.NoError(t, err)
			out = append(out, event)
			n.read = f.Seq
		}
	}
}

// last is the latest #commit.
func (n *network) last(t testing.TB) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	events := n.events(t)
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Commit != nil {
			return events[i].Commit
		}
	}
	t.Fatal("no commit was published")
	return nil
}

func value(text string) map[string]any {
	return map[string]any{"$type": string(note), "name": text, "createdAt": "2026-01-01T00:00:00Z"}
}

func all(syntax.NSID) bool { return true }

func reasonOf(t testing.TB, err error) verify.Reason {
	t.Helper()
	refusal, ok := verify.IsRefusal(err)
	require.True(t, ok, "want a refusal, got %v", err)
	return refusal.Reason
}

// TestRandomHistoryHolds verifies every commit of a long random history, and that
// its ops rebuild what the repository holds.
func TestRandomHistoryHolds(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	random := rand.New(rand.NewPCG(1, 2))
	live := map[syntax.RecordKey]bool{}
	for i := range 400 {
		var writes []simulate.Write
		for j := range 1 + random.IntN(6) {
			rkey := syntax.RecordKey(fmt.Sprintf("r%d", random.IntN(300)))
			touched := false
			for _, w := range writes {
				touched = touched || w.Rkey == rkey
			}
			switch {
			case touched:
			case !live[rkey]:
				live[rkey] = true
				writes = append(writes, simulate.Create(note, rkey, value(fmt.Sprint(i, j))))
			case random.IntN(3) == 0:
				delete(live, rkey)
				writes = append(writes, simulate.Delete(note, rkey))
			default:
				writes = append(writes, simulate.Update(note, rkey, value(fmt.Sprint(i, j))))
			}
		}
		_, err := n.world.Commit(n.did, writes...)
		require.NoError(t, err)
	}
	rebuilt := map[record.Key]syntax.CID{}
	for _, event := range n.events(t) {
		if event.Commit == nil {
			continue
		}
		verified, err := n.verifier.Commit(t.Context(), event.Commit, all)
		require.NoError(t, err)
		for _, op := range verified.Commit.Ops {
			if op.Action == record.Delete {
				delete(rebuilt, op.Key)
			} else {
				rebuilt[op.Key] = op.CID
			}
		}
	}
	require.Len(t, rebuilt, len(live))
	for entry := range n.world.Records(simulate.View{}) {
		require.Equal(t, entry.CID, rebuilt[entry.Key], entry.Key)
	}
}

func TestOpsOnOtherCollectionsAreLeftOut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	_, err := n.world.Commit(n.did,
		simulate.Create(note, "a", value("a")),
		simulate.Create("app.example.post", "b", map[string]any{"$type": "app.example.post"}))
	require.NoError(t, err)
	verified, err := n.verifier.Commit(t.Context(), n.last(t), func(c syntax.NSID) bool { return c == note })
	require.NoError(t, err)
	require.Len(t, verified.Commit.Ops, 1)
	require.EqualValues(t, "a", verified.Commit.Ops[0].Key.Rkey)
	require.NotEmpty(t, verified.PDS)
}

func TestFaultyCommitsAreRefused(t *testing.T) {
	t.Parallel()
	for fault, want := range map[simulate.Fault]verify.Reason{
		simulate.ForgedSignature: verify.Signature,
		simulate.WrongPrevData:   verify.Tree,
		simulate.MissingBlock:    verify.Blocks,
	} {
		n := newNetwork(t)
		_, err := n.world.CommitFaulty(n.did, fault, simulate.Create(note, "a", value("a")))
		require.NoError(t, err)
		_, err = n.verifier.Commit(t.Context(), n.last(t), all)
		require.Equal(t, want, reasonOf(t, err))
	}
}

// TestAlteredEventsAreRefused changes one thing at a time in a commit that holds.
func TestAlteredEventsAreRefused(t *testing.T) {
	t.Parallel()
	other := lexutil.LexLink(cid.MustParse("bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"))
	text := func(s string) *string { return &s }
	cases := map[string]struct {
		alter func(*comatproto.SyncSubscribeRepos_Commit)
		want  verify.Reason
	}{
		"too big flag":   {func(m *comatproto.SyncSubscribeRepos_Commit) { m.TooBig = true }, verify.Malformed},
		"rebase flag":    {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Rebase = true }, verify.Malformed},
		"other repo":     {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Repo = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" }, verify.Malformed},
		"repo is no DID": {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Repo = "amara.test" }, verify.Malformed},
		"other rev":      {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Rev = "3jzfcijpj2z2a" }, verify.Malformed},
		"future rev": {func(m *comatproto.SyncSubscribeRepos_Commit) {
			m.Rev = string(syntax.NewTIDFromTime(time.Now().Add(time.Hour), 0))
		}, verify.Future},
		"rev is no TID":   {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Rev = "today" }, verify.Malformed},
		"since is no TID": {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Since = text("before") }, verify.Malformed},
		"time is none":    {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Time = "now" }, verify.Malformed},
		"other commit":    {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Commit = other }, verify.Malformed},
		"other prevData":  {func(m *comatproto.SyncSubscribeRepos_Commit) { m.PrevData = &other }, verify.Tree},
		"no prevData":     {func(m *comatproto.SyncSubscribeRepos_Commit) { m.PrevData = nil }, verify.Malformed},
		"too many ops": {func(m *comatproto.SyncSubscribeRepos_Commit) {
			m.Ops = make([]*comatproto.SyncSubscribeRepos_RepoOp, verify.MaxOps+1)
		}, verify.Limit},
		"null op":              {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops = append(m.Ops, nil) }, verify.Malformed},
		"unknown action":       {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Action = "upsert" }, verify.Malformed},
		"path without rkey":    {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Path = string(note) }, verify.Malformed},
		"create with prev":     {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Prev = &other }, verify.Malformed},
		"create without cid":   {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Cid = nil }, verify.Malformed},
		"create of other cid":  {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Cid = &other }, verify.Tree},
		"op left out":          {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops = nil }, verify.Tree},
		"op twice":             {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops = append(m.Ops, m.Ops[0]) }, verify.Malformed},
		"op that did not be":   {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Ops[0].Path = string(note) + "/other" }, verify.Tree},
		"no blocks":            {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Blocks = nil }, verify.Blocks},
		"truncated blocks":     {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Blocks = m.Blocks[:len(m.Blocks)-3] }, verify.Blocks},
		"blocks over the size": {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Blocks = make([]byte, verify.MaxBlocks+1) }, verify.Limit},
		"lying section length": {func(m *comatproto.SyncSubscribeRepos_Commit) { m.Blocks = append(m.Blocks, 0xff, 0xff, 0xff, 0x0f) }, verify.Blocks},
	}
	n := newNetwork(t)
	_, err := n.world.Commit(n.did, simulate.Create(note, "first", value("first")))
	require.NoError(t, err)
	for name, c := range cases {
		_, err := n.world.Commit(n.did, simulate.Create(note, syntax.RecordKey(fmt.Sprintf("r%d", n.world.LastSeq())), value(name)))
		require.NoError(t, err)
		msg := n.last(t)
		c.alter(msg)
		_, err = n.verifier.Commit(t.Context(), msg, all)
		require.Equal(t, c.want, reasonOf(t, err), "%s: %v", name, err)
	}
}

// TestNoAlteredByteHolds alters each byte of a commit's blocks in turn. The CAR's
// own header is not signed: what still parses there must at least change nothing.
func TestNoAlteredByteHolds(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	_, err := n.world.Commit(n.did, simulate.Create(note, "a", value("a")))
	require.NoError(t, err)
	msg := n.last(t)
	blocks := msg.Blocks
	want, err := n.verifier.Commit(t.Context(), msg, all)
	require.NoError(t, err)
	header := 1 + int(blocks[0])
	for i := range blocks {
		altered := append([]byte(nil), blocks...)
		altered[i] ^= 0x55
		msg.Blocks = altered
		got, err := n.verifier.Commit(t.Context(), msg, all)
		if i < header && err == nil {
			require.Equal(t, want, got, "byte %d of the header", i)
			continue
		}
		require.Error(t, err, "byte %d", i)
	}
}

func TestRotatedKeyIsLearntOnFailure(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	for i := range 3 {
		_, err := n.world.Commit(n.did, simulate.Create(note, syntax.RecordKey(fmt.Sprint("r", i)), value("a")))
		require.NoError(t, err)
		_, err = n.verifier.Commit(t.Context(), n.last(t), all)
		require.NoError(t, err)
		require.NoError(t, n.world.RotateKey(n.did))
	}
}

func TestUnknownAccountIsRefused(t *testing.T) {
	t.Parallel()
	stranger := newNetwork(t)
	n := newNetwork(t)
	did, err := stranger.world.CreateAccount("stranger")
	require.NoError(t, err)
	_, err = stranger.world.Commit(did, simulate.Create(note, "a", value("a")))
	require.NoError(t, err)
	_, err = n.verifier.Commit(t.Context(), stranger.last(t), all)
	require.Equal(t, verify.Identity, reasonOf(t, err))
}

func TestEndedContextIsNoRefusal(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	_, err := n.world.Commit(n.did, simulate.Create(note, "a", value("a")))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n.verifier.Commit(ctx, n.last(t), all)
	require.Error(t, err)
	_, refused := verify.IsRefusal(err)
	require.False(t, refused)
}

func TestSync(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	require.NoError(t, n.world.Sync(n.did))
	events := n.events(t)
	msg := events[len(events)-1].Sync
	require.NotNil(t, msg)
	commit, err := n.verifier.Sync(t.Context(), msg)
	require.NoError(t, err)
	require.Equal(t, n.did, commit.DID)
	require.EqualValues(t, msg.Rev, commit.Rev)
	require.NotEmpty(t, commit.Data)

	msg.Rev = "3jzfcijpj2z2a"
	_, err = n.verifier.Sync(t.Context(), msg)
	require.Equal(t, verify.Malformed, reasonOf(t, err))
}

// FuzzCommit holds that whatever is done to the blocks of a signed commit, what is
// accepted is still that commit.
func FuzzCommit(f *testing.F) {
	n := newNetwork(f)
	_, err := n.world.Commit(n.did, simulate.Create(note, "a", value("a")))
	require.NoError(f, err)
	msg := n.last(f)
	want, err := n.verifier.Commit(f.Context(), msg, all)
	require.NoError(f, err)
	f.Add([]byte(msg.Blocks))
	f.Fuzz(func(t *testing.T, blocks []byte) {
		altered := *msg
		altered.Blocks = blocks
		got, err := n.verifier.Commit(t.Context(), &altered, all)
		if err != nil {
			reasonOf(t, err)
			return
		}
		require.Equal(t, want, got)
	})
}
