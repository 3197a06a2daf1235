package network_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/network"
)

// TestMove takes an account and its records to the other PDS, where it writes on
// with another signing key.
func TestMove(t *testing.T) {
	n := network.Start(t)
	ctx := t.Context()
	mover, err := n.PDSs[0].CreateAccount(ctx, "mover")
	require.NoError(t, err)
	first, err := mover.CreateRecord(ctx, collection, value("before"))
	require.NoError(t, err)
	directory := identity.BaseDirectory{PLCURL: n.PLC, HTTPClient: http.Client{Transport: n.Transport()}, SkipDNSDomainSuffixes: []string{".test"}}
	before, err := directory.LookupDID(ctx, mover.DID)
	require.NoError(t, err)

	require.NoError(t, n.Move(ctx, mover, n.PDSs[1], "mover"))
	after, err := directory.LookupDID(ctx, mover.DID)
	require.NoError(t, err)
	require.Equal(t, n.PDSs[1].URL, after.PDSEndpoint())
	require.NotEqual(t, before.Keys["atproto"], after.Keys["atproto"])
	require.Equal(t, n.PDSs[1], mover.PDS)
	requireRecord(t, mover, first, value("before"))
	second, err := mover.CreateRecord(ctx, collection, value("after"))
	require.NoError(t, err)
	requireRecord(t, mover, second, value("after"))
}

// TestImport has a PDS lose what was written since an export.
func TestImport(t *testing.T) {
	n := network.Start(t)
	ctx := t.Context()
	a, err := n.PDSs[0].CreateAccount(ctx, "forgetful")
	require.NoError(t, err)
	kept, err := a.CreateRecord(ctx, collection, value("kept"))
	require.NoError(t, err)
	backup, err := a.Export(ctx)
	require.NoError(t, err)
	lost, err := a.CreateRecord(ctx, collection, value("lost"))
	require.NoError(t, err)

	require.NoError(t, a.Import(ctx, backup))
	requireRecord(t, a, kept, value("kept"))
	key, err := record.ParseKey(lost.URI)
	require.NoError(t, err)
	_, err = a.PDS.GetRecord(ctx, key)
	require.ErrorContains(t, err, "RecordNotFound")
}

// TestRelayForgets and answers what an indexer asks when that has happened.
func TestRelayForgets(t *testing.T) {
	n := network.Start(t)
	ctx := t.Context()
	relay := n.Relay(t)
	a, err := n.PDSs[1].CreateAccount(ctx, "earlier")
	require.NoError(t, err)
	subscribeTo(t, relay.URL).next(t, func(e event) bool { return e.account != nil })
	relay.Forget()
	forgotten := relay.LastSeq()
	written, err := a.CreateRecord(ctx, collection, value("new"))
	require.NoError(t, err)

	events := subscribeTo(t, relay.URL)
	info := events.next(t, func(event) bool { return true }).info
	require.NotNil(t, info, "the first thing said is that the cursor is outdated")
	require.Equal(t, "OutdatedCursor", info.Name)
	commit := events.commit(t, a.DID)
	require.Greater(t, commit.Seq, forgotten)
	require.Contains(t, string(written.URI), commit.Ops[len(commit.Ops)-1].Path)

	var listed struct{ Repos []struct{ DID string } }
	require.NoError(t, json.Unmarshal(ask(t, relay, "listRepos"), &listed))
	require.Equal(t, a.DID.String(), listed.Repos[0].DID)
	require.NotEmpty(t, ask(t, relay, "getRepo?did="+a.DID.String()))
}

// ask is the answer to a question of com.atproto.sync.
func ask(t *testing.T, relay *network.Relay, question string) []byte {
	t.Helper()
	res, err := http.Get(strings.Replace(relay.URL, "ws", "http", 1) + "/xrpc/com.atproto.sync." + question)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return body
}
