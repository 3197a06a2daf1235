package network_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atclient"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/network"
)

const collection = syntax.NSID("pub.layers.persona.persona")

// value holds what is easily lost on the way.
func value(name string) map[string]any {
	return map[string]any{
		"$type": collection.String(), "name": name,
		"large": json.Number("9007199254740991"), "text": "é, not NUL: \\0, NUL: \x00",
	}
}

// TestNetwork uses every call of the client on both PDSes, and sees its effect in
// what the PDS answers or sends.
func TestNetwork(t *testing.T) {
	n := network.Start(t)
	for i, pds := range n.PDSs {
		t.Run(pds.Domain, func(t *testing.T) {
			t.Parallel()
			events := subscribe(t, pds)
			alice, err := pds.CreateAccount(t.Context(), "alice")
			require.NoError(t, err)

			checkIdentity(t, n, alice)
			written := checkRecords(t, alice, events)
			_, err = n.PDSs[1-i].GetRecord(t.Context(), written)
			require.ErrorContains(t, err, written.String(), "the other PDS does not have it")
			checkBatches(t, alice, events)
			checkBlobs(t, alice)
			checkHandle(t, n, alice, events)
			checkStatus(t, alice, written, events)
		})
	}
}

func checkIdentity(t *testing.T, n *network.Network, a *network.Account) {
	t.Helper()
	directory := identity.BaseDirectory{
		PLCURL:                n.PLC,
		HTTPClient:            http.Client{Transport: n.Transport()},
		SkipDNSDomainSuffixes: []string{".test"},
	}
	found, err := directory.LookupHandle(t.Context(), a.Handle)
	require.NoError(t, err)
	require.Equal(t, a.DID, found.DID)
	require.Equal(t, a.PDS.URL, found.PDSEndpoint())
	_, err = found.PublicKey()
	require.NoError(t, err)
}

func checkRecords(t *testing.T, a *network.Account, events *events) record.Key {
	t.Helper()
	ctx := t.Context()
	written, err := a.CreateRecord(ctx, collection, value("one"))
	require.NoError(t, err)
	key, err := record.ParseKey(written.URI)
	require.NoError(t, err)
	op := events.commit(t, a.DID).Ops[0]
	require.Equal(t, "create "+key.Path()+" "+string(written.CID), op.Action+" "+op.Path+" "+op.Cid.String())
	requireRecord(t, a, written, value("one"))

	changed, err := a.PutRecord(ctx, collection, key.Rkey, value("two"))
	require.NoError(t, err)
	require.NotEqual(t, written.CID, changed.CID)
	op = events.commit(t, a.DID).Ops[0]
	require.Equal(t, "update "+key.Path()+" "+string(written.CID), op.Action+" "+op.Path+" "+op.Prev.String())
	requireRecord(t, a, changed, value("two"))
	return key
}

func requireRecord(t *testing.T, a *network.Account, written network.Record, want map[string]any) {
	t.Helper()
	key, err := record.ParseKey(written.URI)
	require.NoError(t, err)
	read, err := a.PDS.GetRecord(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, written.CID, read.CID)
	wantJSON, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, string(wantJSON), string(read.Value))
	require.Contains(t, string(read.Value), "9007199254740991")
}

func checkBatches(t *testing.T, a *network.Account, events *events) {
	t.Helper()
	ctx := t.Context()
	const many = 101 // more than a page
	const other = syntax.NSID("pub.layers.media.media")
	var writes []network.Write
	for i := range many {
		rkey := syntax.RecordKey(fmt.Sprintf("r%03d", i))
		writes = append(writes, network.Write{Action: record.Create, Collection: other, Rkey: rkey, Value: map[string]any{"$type": other, "n": i}})
	}
	require.NoError(t, a.ApplyWrites(ctx, writes))
	require.Len(t, events.commit(t, a.DID).Ops, many)
	list, err := a.PDS.ListRecords(ctx, a.DID, other)
	require.NoError(t, err)
	require.Len(t, list, many)
	require.JSONEq(t, `{"$type":"pub.layers.media.media","n":100}`, string(list[0].Value))

	require.NoError(t, a.ApplyWrites(ctx, []network.Write{
		{Action: record.Update, Collection: other, Rkey: "r000", Value: map[string]any{"$type": other, "n": -1}},
		{Action: record.Delete, Collection: other, Rkey: "r001"},
	}))
	require.Len(t, events.commit(t, a.DID).Ops, 2)
	require.NoError(t, a.DeleteRecord(ctx, other, "r002"))
	op := events.commit(t, a.DID).Ops[0]
	require.Equal(t, "delete "+string(other)+"/r002", op.Action+" "+op.Path)
	list, err = a.PDS.ListRecords(ctx, a.DID, other)
	require.NoError(t, err)
	require.Len(t, list, many-2)
}

func checkBlobs(t *testing.T, a *network.Account) {
	t.Helper()
	blob, err := a.UploadBlob(t.Context(), "text/plain", []byte("a blob"))
	require.NoError(t, err)
	withBlob := value("blob")
	withBlob["file"] = blob
	written, err := a.CreateRecord(t.Context(), collection, withBlob)
	require.NoError(t, err)
	requireRecord(t, a, written, withBlob)
	require.Contains(t, string(blob), `"mimeType":"text/plain"`)
}

func checkHandle(t *testing.T, n *network.Network, a *network.Account, events *events) {
	t.Helper()
	before := a.Handle
	require.NoError(t, a.UpdateHandle(t.Context(), "alicia"))
	events.next(t, func(e event) bool { return e.identity != nil && e.identity.Did == a.DID.String() })
	did, err := a.PDS.ResolveHandle(t.Context(), a.Handle)
	require.NoError(t, err)
	require.Equal(t, a.DID, did)
	_, err = a.PDS.ResolveHandle(t.Context(), before)
	require.Error(t, err)
	checkIdentity(t, n, a)
}

func checkStatus(t *testing.T, a *network.Account, key record.Key, events *events) {
	t.Helper()
	ctx := t.Context()
	for _, step := range []struct {
		do     func() error
		status string // empty while the account is active
	}{
		{func() error { return a.Deactivate(ctx) }, "deactivated"},
		{func() error { return a.Activate(ctx) }, ""},
		{func() error { return a.PDS.TakeDown(ctx, a.DID, true) }, "takendown"},
		{func() error { return a.PDS.TakeDown(ctx, a.DID, false) }, ""},
		{func() error { return a.PDS.DeleteAccount(ctx, a.DID) }, "deleted"},
	} {
		require.NoError(t, step.do())
		account := events.next(t, func(e event) bool { return e.account != nil && e.account.Did == a.DID.String() }).account
		require.Equal(t, step.status == "", account.Active)
		if step.status == "" {
			require.Nil(t, account.Status)
			_, err := a.PDS.GetRecord(ctx, key)
			require.NoError(t, err)
			continue
		}
		require.Equal(t, step.status, *account.Status)
		_, err := a.PDS.GetRecord(ctx, key)
		var refused *atclient.APIError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, http.StatusBadRequest, refused.StatusCode)
	}
}

// events is a subscription to a PDS's event stream.
type events struct{ conn *websocket.Conn }

// event is one of its frames; one field is set, or none for other kinds.
type event struct {
	commit   *comatproto.SyncSubscribeRepos_Commit
	identity *comatproto.SyncSubscribeRepos_Identity
	account  *comatproto.SyncSubscribeRepos_Account
	info     *comatproto.SyncSubscribeRepos_Info
}

func subscribe(t *testing.T, pds *network.PDS) *events {
	t.Helper()
	return subscribeTo(t, pds.WebsocketURL())
}

func subscribeTo(t *testing.T, host string) *events {
	t.Helper()
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), host+"/xrpc/com.atproto.sync.subscribeRepos?cursor=0", nil)
	require.NoError(t, err)
	_ = res.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return &events{conn: conn}
}

// commit is the next commit of the repository that changes a record.
func (e *events) commit(t *testing.T, repo syntax.DID) *comatproto.SyncSubscribeRepos_Commit {
	t.Helper()
	return e.next(t, func(e event) bool {
		return e.commit != nil && e.commit.Repo == repo.String() && len(e.commit.Ops) > 0
	}).commit
}

// next is the next event that is wanted. The test's own time limit ends the wait.
func (e *events) next(t *testing.T, wanted func(event) bool) event {
	t.Helper()
	for {
		_, frame, err := e.conn.NextReader()
		require.NoError(t, err)
		var header stream.EventHeader
		require.NoError(t, header.UnmarshalCBOR(frame))
		require.EqualValues(t, 1, header.Op, "not an error frame")
		var got event
		switch header.MsgType {
		case "#commit":
			got.commit = new(comatproto.SyncSubscribeRepos_Commit)
			require.NoError(t, got.commit.UnmarshalCBOR(frame))
		case "#identity":
			got.identity = new(comatproto.SyncSubscribeRepos_Identity)
			require.NoError(t, got.identity.UnmarshalCBOR(frame))
		case "#account":
			got.account = new(comatproto.SyncSubscribeRepos_Account)
			require.NoError(t, got.account.UnmarshalCBOR(frame))
		case "#info":
			got.info = new(comatproto.SyncSubscribeRepos_Info)
			require.NoError(t, got.info.UnmarshalCBOR(frame))
		}
		if wanted(got) {
			return got
		}
	}
}
