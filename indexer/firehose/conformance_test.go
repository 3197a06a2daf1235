package firehose

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

// The headers of frames, in DAG-CBOR.
const (
	commitHeader = "\xa2\x61t\x67#commit\x62op\x01"
	errorHeader  = "\xa1\x62op\x20"
)

var target = cid.MustParse("bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")

func commitBody(t testing.TB) string {
	var body bytes.Buffer
	c := lexutil.LexLink(target)
	require.NoError(t, (&comatproto.SyncSubscribeRepos_Commit{
		Repo: "did:plc:abc", Rev: "3jzfcijpj2z2a", Seq: 7, Time: "2026-01-01T00:00:00Z", Commit: c, Blocks: []byte("blocks"),
		Ops: []*comatproto.SyncSubscribeRepos_RepoOp{{Action: "create", Path: "a.b.c/d", Cid: &c}}, Blobs: []lexutil.LexLink{},
	}).MarshalCBOR(&body))
	return body.String()
}

// with adds a property to a small map.
func with(object, property string) string {
	return string([]byte{object[0] + 1}) + object[1:] + property
}

func bytesOf(n int) string {
	return "\x5a" + string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + strings.Repeat("x", n)
}

// TestConformance has a frame for each rule of the event stream.
func TestConformance(t *testing.T) {
	t.Parallel()
	body := commitBody(t)
	whole := commitHeader + body
	size := MaxFrame - len(whole) - len("\x63big") - 5
	commit, nothing, refused, ended := int64(7), int64(0), int64(-1), int64(-2)
	for name, c := range map[string]struct {
		frame string
		want  int64 // the commit's seq; nothing passes by; refused; the host has ended the stream
	}{
		"a commit":                               {whole, commit},
		"a frame of 5,000,000 bytes":             {commitHeader + with(body, "\x63big"+bytesOf(size)), commit},
		"a frame of 5,000,001 bytes":             {commitHeader + with(body, "\x63big"+bytesOf(size+1)), refused},
		"an unknown property":                    {commitHeader + with(body, "\x65later\xa1\x61a\x82\x01\xf6"), commit},
		"an unknown property that is a link":     {commitHeader + with(body, "\x65later\xd8\x2a\x58\x25\x00"+target.KeyString()), commit},
		"an unknown property that is nested":     {commitHeader + with(body, "\x65later"+strings.Repeat("\x81", 100_000)+"\x01"), commit},
		"an unknown property that has no end":    {commitHeader + with(body, "\x65later\x9b\xff\xff\xff\xff\xff\xff\xff\xff"), refused},
		"an unknown property of the header":      {with(commitHeader, "\x65later\x01") + body, commit},
		"an unknown type":                        {"\xa2\x61t\x66#later\x62op\x01\xa1\x61x\x01", nothing},
		"an unknown type without a body":         {"\xa2\x61t\x66#later\x62op\x01", nothing},
		"a type of other streams":                {"\xa2\x61t\x67#labels\x62op\x01\x01", nothing},
		"an unknown operation":                   {"\xa2\x61t\x67#commit\x62op\x02" + body, nothing},
		"an unknown negative operation":          {"\xa1\x62op\x21\xa0", nothing},
		"a header without operation":             {"\xa1\x61t\x67#commit" + body, refused},
		"an error":                               {errorHeader + "\xa2\x65error\x6cFutureCursor\x67message\x65ahead", ended},
		"an error with an unknown property":      {errorHeader + "\xa2\x65error\x6cFutureCursor\x65later\x01", ended},
		"an error without a body":                {errorHeader, refused},
		"a commit without a body":                {commitHeader, refused},
		"a commit that is a list":                {commitHeader + "\x80", refused},
		"a commit cut short":                     {whole[:len(whole)-1], refused},
		"a commit with a seq that is no number":  {commitHeader + strings.Replace(body, "\x63seq\x07", "\x63seq\x61x", 1), refused},
		"blocks that claim more than there is":   {commitHeader + strings.Replace(body, "\x46blocks", "\x5a\x7f\xff\xff\xffblocks", 1), refused},
		"nothing":                                {"", refused},
		"text":                                   {"{\"op\":1}", refused},
		"a million lists inside of one another":  {strings.Repeat("\x81", 1_000_000), refused},
		"a header that claims a million entries": {"\xba\x00\x0f\x42\x40", refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event, err := Frame{Data: []byte(c.frame), Size: int64(len(c.frame))}.Decode()
			var end *StreamError
			switch c.want {
			case refused:
				require.ErrorIs(t, err, ErrFrame)
			case ended:
				require.ErrorAs(t, err, &end)
				require.Equal(t, "FutureCursor", end.Name)
			case nothing:
				require.NoError(t, err)
				require.Equal(t, Event{}, event)
			default:
				require.NoError(t, err)
				require.Equal(t, c.want, event.Seq)
				require.Equal(t, "did:plc:abc", event.Commit.Repo)
			}
		})
	}
}

// TestEveryTypeIsDecoded round-trips each kind of event.
func TestEveryTypeIsDecoded(t *testing.T) {
	t.Parallel()
	for _, raw := range []stream.XRPCStreamEvent{
		{RepoSync: &comatproto.SyncSubscribeRepos_Sync{Did: "did:plc:abc", Rev: "3jzfcijpj2z2a", Seq: 8, Time: "2026-01-01T00:00:00Z", Blocks: []byte("x")}},
		{RepoIdentity: &comatproto.SyncSubscribeRepos_Identity{Did: "did:plc:abc", Seq: 9, Time: "2026-01-01T00:00:00Z"}},
		{RepoAccount: &comatproto.SyncSubscribeRepos_Account{Did: "did:plc:abc", Seq: 10, Time: "2026-01-01T00:00:00Z", Active: true}},
		{RepoInfo: &comatproto.SyncSubscribeRepos_Info{Name: "OutdatedCursor"}},
	} {
		var frame bytes.Buffer
		require.NoError(t, raw.Serialize(&frame))
		event, err := Frame{Data: frame.Bytes(), Size: int64(frame.Len())}.Decode()
		require.NoError(t, err)
		require.Equal(t, max(raw.Sequence(), 0), event.Seq)
		require.Equal(t, Event{Seq: event.Seq, Sync: raw.RepoSync, Identity: raw.RepoIdentity, Account: raw.RepoAccount, Info: raw.RepoInfo}, event)
	}
}

// FuzzDecode holds that what is accepted is stable: encoded anew and decoded again it
// is the same, and it is what the protocol's own package reads in the frame.
func FuzzDecode(f *testing.F) {
	body := commitBody(f)
	for _, seed := range []string{
		"", commitHeader, commitHeader + body, with(commitHeader, "\x65later\x01") + with(body, "\x65later\xa1\x61a\x82\x01\xf6"),
		errorHeader + "\xa1\x65error\x6cFutureCursor", "\xa2\x61t\x65#info\x62op\x01\xa1\x64name\x6eOutdatedCursor",
		"\xa2\x61t\x65#sync\x62op\x01\xa5\x63did\x61d\x63rev\x61r\x63seq\x01\x64time\x61t\x66blocks\x41b",
		"\xa2\x61t\x68#account\x62op\x01\xa4\x63did\x61d\x63seq\x01\x64time\x61t\x66active\xf5",
		"\xa2\x61t\x69#identity\x62op\x01\xa4\x63did\x61d\x63seq\x01\x64time\x61t\x66handle\x61h",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		event, err := Frame{Data: data, Size: int64(len(data))}.Decode()
		var ended *StreamError
		if err != nil {
			require.True(t, errors.Is(err, ErrFrame) || errors.As(err, &ended), "unexpected kind of error: %v", err)
			return
		}
		raw := stream.XRPCStreamEvent{RepoCommit: event.Commit, RepoSync: event.Sync, RepoIdentity: event.Identity, RepoAccount: event.Account, RepoInfo: event.Info}
		var once, twice bytes.Buffer
		if raw.Serialize(&once) != nil {
			return // of no type, or with a link that is none, which verification refuses
		}
		again, err := Frame{Data: once.Bytes(), Size: int64(once.Len())}.Decode()
		require.NoError(t, err)
		require.Equal(t, event.Seq, again.Seq)
		raw = stream.XRPCStreamEvent{RepoCommit: again.Commit, RepoSync: again.Sync, RepoIdentity: again.Identity, RepoAccount: again.Account, RepoInfo: again.Info}
		require.NoError(t, raw.Serialize(&twice))
		require.Equal(t, once.Bytes(), twice.Bytes())

		var theirs stream.XRPCStreamEvent
		require.NoError(t, theirs.Deserialize(bytes.NewReader(data)))
		require.Equal(t, event, Event{Seq: event.Seq, Commit: theirs.RepoCommit, Sync: theirs.RepoSync, Identity: theirs.RepoIdentity, Account: theirs.RepoAccount, Info: theirs.RepoInfo})
	})
}
