package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

func startServer(t *testing.T, w *World, cfg ServerConfig) *Server {
	t.Helper()
	s := NewServer(w, cfg)
	require.NoError(t, s.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}

func get(t *testing.T, s *Server, path string) (int, []byte) {
	t.Helper()
	answer, err := http.Get(s.URL() + path)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, body
}

func query(t *testing.T, s *Server, method string, params ...string) map[string]any {
	t.Helper()
	code, body := get(t, s, "/xrpc/"+method+"?"+values(params).Encode())
	var out map[string]any
	require.NoError(t, json.Unmarshal(body, &out), string(body))
	out["status code"] = code
	return out
}

func values(pairs []string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// subscriber reads a subscription message by message.
type subscriber struct {
	t    *testing.T
	conn *websocket.Conn
}

func subscribe(t *testing.T, s *Server, cursor string) *subscriber {
	t.Helper()
	address := s.RelayURL() + "/xrpc/com.atproto.sync.subscribeRepos"
	if cursor != "" {
		address += "?cursor=" + cursor
	}
	conn, _, err := websocket.DefaultDialer.Dial(address, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &subscriber{t, conn}
}

func (s *subscriber) next() *stream.XRPCStreamEvent {
	s.t.Helper()
	require.NoError(s.t, s.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, message, err := s.conn.ReadMessage()
	require.NoError(s.t, err)
	return event(s.t, Frame{Data: message})
}

func (s *subscriber) seqs(n int) []int64 {
	s.t.Helper()
	var found []int64
	for range n {
		seq, ok := s.next().GetSequence()
		require.True(s.t, ok)
		found = append(found, seq)
	}
	return found
}

func TestANewAccountEmitsWhatAPDSEmits(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	sub := subscribe(t, s, "0")
	did := createAccount(t, w, "alice")

	require.Equal(t, "alice.sim.test", *sub.next().RepoIdentity.Handle)
	require.True(t, sub.next().RepoAccount.Active)
	first := sub.next().RepoCommit
	require.Nil(t, first.Since)
	require.Nil(t, first.PrevData)
	require.Empty(t, first.Ops)
	sync := sub.next().RepoSync
	require.Equal(t, first.Rev, sync.Rev)

	directory := &identity.BaseDirectory{PLCURL: s.URL(), SkipHandleVerification: true}
	commit, err := repo.VerifySyncMessage(context.Background(), directory, sync)
	require.NoError(t, err)
	require.Equal(t, string(did), commit.DID)
}

func TestCursors(t *testing.T) {
	w := newTestWorld(t, Config{Window: 3})
	did := createAccount(t, w, "alice")
	for i := range 4 {
		_, err := w.Commit(did, Create(note, syntax.RecordKey(fmt.Sprint(i)), noteValue("x")))
		require.NoError(t, err)
	}
	s := startServer(t, w, ServerConfig{}) // seq 1 to 8; 6 to 8 are kept

	t.Run("kept", func(t *testing.T) {
		require.Equal(t, []int64{7, 8}, subscribe(t, s, "6").seqs(2))
	})
	t.Run("oldest kept", func(t *testing.T) {
		require.Equal(t, []int64{6, 7, 8}, subscribe(t, s, "5").seqs(3))
	})
	t.Run("outdated", func(t *testing.T) {
		sub := subscribe(t, s, "0")
		require.Equal(t, "OutdatedCursor", sub.next().RepoInfo.Name)
		require.Equal(t, []int64{6, 7, 8}, sub.seqs(3))
	})
	t.Run("future", func(t *testing.T) {
		sub := subscribe(t, s, "9")
		require.Equal(t, "FutureCursor", sub.next().Error.Error)
		_, _, err := sub.conn.ReadMessage()
		require.Error(t, err)
	})
	t.Run("malformed", func(t *testing.T) {
		require.Equal(t, http.StatusBadRequest, query(t, s, "com.atproto.sync.subscribeRepos", "cursor", "x")["status code"])
	})
	t.Run("live", func(t *testing.T) {
		sub := subscribe(t, s, "")
		_, err := w.Commit(did, Create(note, "later", noteValue("x")))
		require.NoError(t, err)
		require.Equal(t, []int64{9}, sub.seqs(1))
	})
}

func TestASubscriberThatStopsReadingHoldsUpNobody(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	did := createAccount(t, w, "alice")
	stuck := subscribe(t, s, "0")
	big := noteValue(strings.Repeat("x", 500_000))
	for i := range 40 {
		big["n"] = int64(i)
		_, err := w.Commit(did, Create(note, syntax.RecordKey(fmt.Sprint(i)), big))
		require.NoError(t, err)
	}
	require.Len(t, subscribe(t, s, "0").seqs(44), 44)
	require.Len(t, stuck.seqs(44), 44)
}

func TestPings(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{Ping: time.Millisecond})
	sub := subscribe(t, s, "")
	pinged := make(chan struct{})
	sub.conn.SetPingHandler(func(string) error { close(pinged); return fmt.Errorf("seen") })
	go func() { _, _, _ = sub.conn.ReadMessage() }()
	<-pinged
}

func TestAlterStandsBetweenLogAndSubscriber(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{Alter: func(f Frame) [][]byte {
		if f.Seq == 1 {
			return nil
		}
		return [][]byte{f.Data, f.Data}
	}})
	createAccount(t, w, "alice")
	require.Equal(t, []int64{2, 2, 3, 3, 4, 4}, subscribe(t, s, "0").seqs(6))
}

func TestDeletedAccountsArePurgedFromTheStream(t *testing.T) {
	w := newTestWorld(t, Config{})
	did := createAccount(t, w, "alice")
	require.NoError(t, w.SetStatus(did, Deleted))
	s := startServer(t, w, ServerConfig{})
	e := subscribe(t, s, "0").next().RepoAccount
	require.Equal(t, int64(5), e.Seq)
	require.Equal(t, "deleted", *e.Status)
	require.Equal(t, "RepoNotFound", query(t, s, "com.atproto.sync.getRepo", "did", string(did))["error"])
}

func TestWholeRepositoriesAndProofs(t *testing.T) {
	ctx := context.Background()
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	did := createAccount(t, w, "alice")
	for i := range 200 {
		_, err := w.Commit(did, Create(note, syntax.RecordKey(fmt.Sprint(i)), noteValue(fmt.Sprint(i%50))))
		require.NoError(t, err)
	}
	directory := &identity.BaseDirectory{PLCURL: s.URL(), SkipHandleVerification: true}
	_, car := get(t, s, "/xrpc/com.atproto.sync.getRepo?did="+string(did))
	commit, whole, err := repo.LoadRepoFromCAR(ctx, bytes.NewReader(car))
	require.NoError(t, err)
	_, err = repo.VerifyCommitSignatureFromCar(ctx, directory, car)
	require.NoError(t, err)
	require.False(t, whole.MST.IsPartial())
	require.NoError(t, whole.MST.Verify())
	root, err := whole.MST.RootCID()
	require.NoError(t, err)
	require.Equal(t, commit.Data, *root)
	for e := range w.Records(View{}) {
		data, c, err := whole.GetRecordBytes(ctx, e.Key.Collection, e.Key.Rkey)
		require.NoError(t, err)
		require.Equal(t, e.CBOR, data)
		require.Equal(t, string(e.CID), c.String())
	}
	latest := query(t, s, "com.atproto.sync.getLatestCommit", "did", string(did))
	require.Equal(t, commit.Rev, latest["rev"])

	for _, rkey := range []syntax.RecordKey{"0", "77", "199", "absent"} {
		_, car := get(t, s, fmt.Sprintf("/xrpc/com.atproto.sync.getRecord?did=%s&collection=%s&rkey=%s", did, note, rkey))
		_, part, err := repo.LoadRepoFromCAR(ctx, bytes.NewReader(car))
		require.NoError(t, err)
		want, err := whole.GetRecordCID(ctx, note, rkey)
		_, got, gotErr := part.GetRecordBytes(ctx, note, rkey)
		require.Equal(t, err, gotErr)
		require.Equal(t, want, got)
	}
}

func TestRepoQueries(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	alice, bola := createAccount(t, w, "alice"), createAccount(t, w, "bola")
	for i := range 7 {
		_, err := w.Commit(alice, Create(note, syntax.RecordKey(fmt.Sprint(i)), noteValue("x")),
			Create(note+"s", syntax.RecordKey(fmt.Sprint(i)), noteValue("y")))
		require.NoError(t, err)
	}
	one := query(t, s, "com.atproto.repo.getRecord", "repo", "alice.sim.test", "collection", string(note), "rkey", "3")
	require.Equal(t, "at://"+string(alice)+"/com.example.note/3", one["uri"])
	require.Equal(t, map[string]any{"$type": string(note), "text": "x"}, one["value"])
	require.Equal(t, "RecordNotFound", query(t, s, "com.atproto.repo.getRecord", "repo", string(alice), "collection", string(note), "rkey", "8")["error"])

	for reverse, want := range map[string]string{"false": "6543210", "true": "0123456"} {
		var got, cursor string
		for {
			page := query(t, s, "com.atproto.repo.listRecords", "repo", string(alice), "collection", string(note),
				"limit", "3", "reverse", reverse, "cursor", cursor)
			for _, r := range page["records"].([]any) {
				uri := r.(map[string]any)["uri"].(string)
				got += uri[len(uri)-1:]
			}
			next, more := page["cursor"]
			if !more {
				break
			}
			cursor = next.(string)
		}
		require.Equal(t, want, got)
	}
	require.Equal(t, []any{"com.example.note", "com.example.notes"},
		query(t, s, "com.atproto.repo.describeRepo", "repo", string(alice))["collections"])
	require.Equal(t, []any{map[string]any{"did": string(alice)}},
		query(t, s, "com.atproto.sync.listReposByCollection", "collection", string(note))["repos"])
	first := query(t, s, "com.atproto.sync.listRepos", "limit", "1")
	require.Len(t, first["repos"], 1)
	second := query(t, s, "com.atproto.sync.listRepos", "limit", "1", "cursor", first["cursor"].(string))
	require.Equal(t, string(bola), second["repos"].([]any)[0].(map[string]any)["did"])
	require.NotContains(t, second, "cursor")
}

func TestStatusesAreServed(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	did := createAccount(t, w, "alice")
	require.NoError(t, w.SetStatus(did, Deactivated))
	state := query(t, s, "com.atproto.sync.getRepoStatus", "did", string(did))
	require.Equal(t, false, state["active"])
	require.Equal(t, "deactivated", state["status"])
	require.Equal(t, "RepoDeactivated", query(t, s, "com.atproto.repo.describeRepo", "repo", string(did))["error"])
	seq := w.LastSeq()
	require.NoError(t, w.SetStatus(did, Active))
	sub := subscribe(t, s, fmt.Sprint(seq))
	require.True(t, sub.next().RepoAccount.Active)
	require.NotNil(t, sub.next().RepoIdentity)
	require.NotNil(t, sub.next().RepoSync)
}

func TestIdentities(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	did := createAccount(t, w, "alice")
	require.NoError(t, w.ChangeHandle(did, "alicia"))
	old, err := (&identity.BaseDirectory{PLCURL: s.URL(), SkipHandleVerification: true}).LookupDID(context.Background(), did)
	require.NoError(t, err)
	require.Equal(t, s.URL(), old.PDSEndpoint())
	require.Equal(t, []string{"at://alicia.sim.test"}, old.AlsoKnownAs)
	require.NoError(t, w.RotateKey(did))
	fresh, err := (&identity.BaseDirectory{PLCURL: s.URL(), SkipHandleVerification: true}).LookupDID(context.Background(), did)
	require.NoError(t, err)
	require.NotEqual(t, old.Keys, fresh.Keys)

	require.Equal(t, string(did), query(t, s, "com.atproto.identity.resolveHandle", "handle", "alicia.sim.test")["did"])
	require.Equal(t, "HandleNotFound", query(t, s, "com.atproto.identity.resolveHandle", "handle", "alice.sim.test")["error"])
	ask, err := http.NewRequest(http.MethodGet, s.URL()+"/.well-known/atproto-did", nil)
	require.NoError(t, err)
	ask.Host = "alicia.sim.test"
	answer, err := http.DefaultClient.Do(ask)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, string(did), string(body))
	code, _ := get(t, s, "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	require.Equal(t, http.StatusNotFound, code)
}

func TestValuesSurviveTheJSONForm(t *testing.T) {
	w := newTestWorld(t, Config{})
	s := startServer(t, w, ServerConfig{})
	did := createAccount(t, w, "alice")
	value := map[string]any{"$type": string(note), "text": "a\x00b <é> 👩🏽‍🔬", "n": int64(1)<<53 - 1}
	done, err := w.Commit(did, Create(note, "a", value))
	require.NoError(t, err)
	_, body := get(t, s, fmt.Sprintf("/xrpc/com.atproto.repo.getRecord?repo=%s&collection=%s&rkey=a", did, note))
	var answer struct{ Value json.RawMessage }
	require.NoError(t, json.Unmarshal(body, &answer))
	back, err := atdata.UnmarshalJSON(answer.Value)
	require.NoError(t, err)
	cbor, err := atdata.MarshalCBOR(back)
	require.NoError(t, err)
	require.Equal(t, done.Ops[0].CBOR, cbor)
}
