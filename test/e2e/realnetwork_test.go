package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/network"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestRealNetwork follows two real PDSes with a real PLC directory, through a relay
// that joins their streams. People on both write, revise and delete records of
// every type; what the API answers in the end is what the PDSes hold.
func TestRealNetwork(t *testing.T) {
	n := network.Start(t)
	relay := n.Relay(t)
	d := deploy(t, rig.Upstream{Relay: relay.URL, PLC: n.PLC})
	ix := d.Indexer()
	api := d.api()

	p := &people{t: t, maker: fixture.New(9)}
	for _, pds := range n.PDSs {
		p.join(pds, "amina", "jorg")
	}
	p.write(fixture.Corpus(9, p.dids(), 5))
	for _, a := range p.all {
		p.put(a, "least", fixture.Minimal)
	}
	p.put(p.all[0], "most", fixture.Full)
	p.revise()
	p.follow(d, ix)
	want := p.truth()
	require.Subset(t, collections(want), followed, "the PDSes must hold records of every type")
	require.NotZero(t, p.blobs, "some record must refer to a blob")

	p.rename(p.all[0], d, ix, api)
	leaver := p.visit(n.PDSs[1], "leaver")
	require.NoError(t, leaver.Deactivate(t.Context()))
	d.accountIs(leaver.DID, "deactivated", ix)
	deleted := p.visit(n.PDSs[0], "deleted")
	d.accountIs(deleted.DID, "active", ix)
	require.NoError(t, n.PDSs[0].DeleteAccount(t.Context(), deleted.DID))
	d.accountIs(deleted.DID, "deleted", ix)
	p.follow(d, ix)
	d.Settle(ix)

	d.projected(want)
	require.Empty(t, d.letterStages(), "nothing of what was written is invalid")
	api.gettable(want)
	api.gone(p.removed)
	api.listed(want, p.handles())
	d.verified()
	ix.Stop()
}

// people are the accounts that write.
type people struct {
	t       *testing.T
	maker   *fixture.Maker
	all     []*network.Account
	removed []record.Key
	blobs   int // uploaded
}

func (p *people) join(pds *network.PDS, names ...string) {
	p.t.Helper()
	for _, name := range names {
		account, err := pds.CreateAccount(p.t.Context(), name)
		require.NoError(p.t, err)
		p.all = append(p.all, account)
	}
}

func (p *people) dids() []syntax.DID {
	var dids []syntax.DID
	for _, a := range p.all {
		dids = append(dids, a.DID)
	}
	return dids
}

func (p *people) handles() map[syntax.DID]syntax.Handle {
	all := map[syntax.DID]syntax.Handle{}
	for _, a := range p.all {
		all[a.DID] = a.Handle
	}
	return all
}

func (p *people) account(did syntax.DID) *network.Account {
	for _, a := range p.all {
		if a.DID == did {
			return a
		}
	}
	p.t.Fatalf("%s is none of the accounts", did)
	return nil
}

// write publishes planned records, some of them in one commit, in their order.
func (p *people) write(planned []fixture.Planned) {
	p.t.Helper()
	batches := map[syntax.DID][]network.Write{}
	flush := func(did syntax.DID) {
		require.NoError(p.t, p.account(did).ApplyWrites(p.t.Context(), batches[did]))
		batches[did] = nil
	}
	for _, record := range planned {
		did := record.Key.DID
		batches[did] = append(batches[did], p.create(p.account(did), record.Key, record.Value))
		if len(batches[did]) == 7 {
			flush(did)
		}
	}
	for did, rest := range batches {
		if len(rest) > 0 {
			flush(did)
		}
	}
}

// put publishes a record of each type, one a commit.
func (p *people) put(a *network.Account, rkey syntax.RecordKey, make func(syntax.NSID) map[string]any) {
	p.t.Helper()
	for _, collection := range followed {
		_, err := a.PutRecord(p.t.Context(), collection, rkey, p.uploaded(a, make(collection)))
		require.NoError(p.t, err)
	}
}

func (p *people) create(a *network.Account, key record.Key, value map[string]any) network.Write {
	p.t.Helper()
	return network.Write{Action: record.Create, Collection: key.Collection, Rkey: key.Rkey, Value: p.uploaded(a, value)}
}

// uploaded is a value with each of its blobs uploaded: a PDS takes no record that
// refers to another.
func (p *people) uploaded(a *network.Account, value any) any {
	p.t.Helper()
	switch v := value.(type) {
	case atdata.Blob:
		blob, err := a.UploadBlob(p.t.Context(), v.MimeType, fmt.Appendf(nil, "the content of %s", v.Ref.String()))
		require.NoError(p.t, err)
		p.blobs++
		return blob
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			out[name] = p.uploaded(a, inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = p.uploaded(a, inner)
		}
		return out
	}
	return value
}

// revise writes a new version of every fifth record and deletes every seventh. Which
// these are follows from the DIDs; the full records stay, so that no list is empty.
func (p *people) revise() {
	p.t.Helper()
	held := p.truth()
	for i, key := range held.keys() {
		a := p.account(key.DID)
		switch {
		case key.Rkey == "most":
		case i%7 == 0:
			require.NoError(p.t, a.DeleteRecord(p.t.Context(), key.Collection, key.Rkey))
			p.removed = append(p.removed, key)
		case i%5 == 0:
			value, err := atdata.UnmarshalCBOR(held[key].CBOR)
			require.NoError(p.t, err)
			revised := p.maker.Revise(value)
			for name, property := range revised { // what is kept has been uploaded
				if !equalData(property, value[name]) {
					revised[name] = p.uploaded(a, property)
				}
			}
			_, err = a.PutRecord(p.t.Context(), key.Collection, key.Rkey, revised)
			require.NoError(p.t, err)
		}
	}
}

func equalData(a, b any) bool {
	left, err := json.Marshal(a)
	if err != nil {
		return false
	}
	right, err := json.Marshal(b)
	return err == nil && bytes.Equal(left, right)
}

// truth is what the accounts' repositories hold, exported by their PDSes.
func (p *people) truth() truth {
	p.t.Helper()
	all := truth{}
	for _, a := range p.all {
		response, err := http.Get(a.PDS.URL + "/xrpc/com.atproto.sync.getRepo?did=" + url.QueryEscape(string(a.DID)))
		require.NoError(p.t, err)
		archive, err := io.ReadAll(response.Body)
		require.NoError(p.t, err)
		require.NoError(p.t, response.Body.Close())
		require.Equal(p.t, http.StatusOK, response.StatusCode)
		_, held, err := repo.LoadRepoFromCAR(p.t.Context(), bytes.NewReader(archive))
		require.NoError(p.t, err)
		require.NoError(p.t, held.MST.Walk(func(path []byte, address cid.Cid) error {
			collection, rkey, _ := strings.Cut(string(path), "/")
			key := a.Key(syntax.NSID(collection), syntax.RecordKey(rkey))
			block, _, err := held.GetRecordBytes(p.t.Context(), key.Collection, key.Rkey)
			entry := all[key]
			entry.Key, entry.CID, entry.CBOR = key, syntax.CID(address.String()), block
			all[key] = entry
			return err
		}))
	}
	return all
}

// follow waits until the index has come to the latest commit of each repository.
func (p *people) follow(d *deployment, ix *rig.Process) {
	p.t.Helper()
	for _, a := range p.all {
		var latest struct{ Rev string }
		response, err := http.Get(a.PDS.URL + "/xrpc/com.atproto.sync.getLatestCommit?did=" + url.QueryEscape(string(a.DID)))
		require.NoError(p.t, err)
		require.NoError(p.t, json.NewDecoder(response.Body).Decode(&latest))
		require.NoError(p.t, response.Body.Close())
		require.NotEmpty(p.t, latest.Rev)
		rig.Eventually(p.t, fmt.Sprintf("%s to reach rev %s", a.Handle, latest.Rev), func() (bool, string) {
			var rev, sync, reason string
			d.Rows(func(row pgx.Rows) error { return row.Scan(&rev, &sync, &reason) },
				"SELECT rev, sync, reason FROM repos WHERE did = $1", a.DID)
			return rev == latest.Rev && sync == "synchronized", fmt.Sprintf("at %q, %s %s", rev, sync, reason)
		}, ix)
	}
}

// rename gives an account another handle, and requires that the API hears of it.
func (p *people) rename(a *network.Account, d *deployment, ix *rig.Process, api *client) {
	p.t.Helper()
	ask := func(handle syntax.Handle) error {
		var page struct{ Records []view }
		return api.query("pub.layers.expression.listExpressions", url.Values{"repo": {string(handle)}}, &page)
	}
	was := a.Handle
	// Before that the API would ask the network, and believe its answer for minutes.
	rig.Eventually(p.t, "the index to know the handle "+string(was), func() (bool, string) {
		var known string
		d.Rows(func(row pgx.Rows) error { return row.Scan(&known) }, "SELECT coalesce(handle, '') FROM repos WHERE did = $1", a.DID)
		return known == string(was), fmt.Sprintf("it is %q", known)
	}, ix)
	rig.Eventually(p.t, "the API to know the handle "+string(was), func() (bool, string) {
		err := ask(was)
		return err == nil, fmt.Sprint(err)
	})
	require.NoError(p.t, a.UpdateHandle(p.t.Context(), "aminata"))
	require.NotEqual(p.t, was, a.Handle)
	for handle, want := range map[syntax.Handle]bool{a.Handle: true, was: false} {
		rig.Eventually(p.t, fmt.Sprintf("the API to know (%v) the handle %s", want, handle), func() (bool, string) {
			err := ask(handle)
			return (err == nil) == want, fmt.Sprint(err)
		})
	}
}

// visit has an account come and write what it will not leave behind.
func (p *people) visit(pds *network.PDS, name string) *network.Account {
	p.t.Helper()
	a, err := pds.CreateAccount(p.t.Context(), name)
	require.NoError(p.t, err)
	p.put(a, "least", fixture.Minimal)
	for _, collection := range followed {
		p.removed = append(p.removed, a.Key(collection, "least"))
	}
	return a
}

// accountIs waits until the index has heard of an account's state.
func (d *deployment) accountIs(did syntax.DID, status string, ix *rig.Process) {
	d.t.Helper()
	rig.Eventually(d.t, fmt.Sprintf("%s to be %s", did, status), func() (bool, string) {
		var now string
		d.Rows(func(row pgx.Rows) error { return row.Scan(&now) }, "SELECT status FROM repos WHERE did = $1", did)
		return now == status, "it is " + now
	}, ix)
}
