package e2e

import (
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/network"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestRealNetworkRecovers is about what the stream does not tell: real PDSes hold
// records from before the indexer first started, and its relay has forgotten the
// events; the same again while it is stopped; an account moves to the other PDS,
// which has another key; another is deactivated and comes back, one is deleted; a
// PDS loses what was written. After each the index is what the PDSes hold.
func TestRealNetworkRecovers(t *testing.T) {
	n := network.Start(t)
	relay := n.Relay(t)
	p := &people{t: t, maker: fixture.New(10)}
	p.join(n.PDSs[0], "prolific", "mover")
	p.join(n.PDSs[1], "quiet", "forgetful")
	prolific, mover, quiet, forgetful := p.all[0], p.all[1], p.all[2], p.all[3]
	p.expressions(prolific, 0, 5000)
	for _, a := range []*network.Account{mover, quiet, forgetful} {
		p.put(a, "least", fixture.Minimal)
	}
	bystander := p.bystander(n.PDSs[0])
	relay.Forget()

	d := deploy(t, rig.Upstream{Relay: relay.URL, PLC: n.PLC})
	ix := d.Indexer()
	p.recovered(d, ix)
	require.False(t, d.follows(bystander.DID), "an account without a record of ours is not followed")

	ix.Stop()
	p.expressions(prolific, 5000, 100)
	p.remove(prolific, 0, 300)
	require.NoError(t, quiet.DeleteRecord(t.Context(), expression, "least"))
	p.join(n.PDSs[1], "newcomer")
	p.put(p.all[4], "least", fixture.Minimal)
	relay.Forget()
	ix = d.Indexer()
	p.recovered(d, ix)

	require.NoError(t, n.Move(t.Context(), mover, n.PDSs[1], "moved"))
	p.expressions(mover, 0, 10)
	p.recovered(d, ix)

	backup, err := forgetful.Export(t.Context())
	require.NoError(t, err)
	p.expressions(forgetful, 0, 20)
	p.recovered(d, ix)
	require.NoError(t, forgetful.Import(t.Context(), backup))
	require.NoError(t, forgetful.Deactivate(t.Context()))
	d.accountIs(forgetful.DID, "deactivated", ix)
	require.NoError(t, forgetful.Activate(t.Context())) // with it comes a #sync
	p.expressions(forgetful, 20, 1)
	p.recovered(d, ix)

	p.comesAndGoes(d, ix, quiet)
	p.deleted(d, ix, p.all[4])
	d.Settle(ix)
	api := d.api()
	api.gettable(p.truth())
	api.gone(p.removed)
	d.verified()
	ix.Stop()
}

// expressions has an account write expressions, 200 in a commit.
func (p *people) expressions(a *network.Account, from, count int) {
	p.t.Helper()
	var writes []network.Write
	for i := from; i < from+count; i++ {
		value := fixture.Minimal(expression)
		value["text"] = fmt.Sprintf("sentence %d of %s", i, a.DID)
		writes = append(writes, network.Write{Action: record.Create, Collection: expression, Rkey: numbered(i), Value: value})
		if len(writes) == 200 || i == from+count-1 {
			require.NoError(p.t, a.ApplyWrites(p.t.Context(), writes))
			writes = nil
		}
	}
}

// remove deletes expressions again, 100 in a commit.
func (p *people) remove(a *network.Account, from, count int) {
	p.t.Helper()
	var writes []network.Write
	for i := from; i < from+count; i++ {
		writes = append(writes, network.Write{Action: record.Delete, Collection: expression, Rkey: numbered(i)})
		p.removed = append(p.removed, a.Key(expression, numbered(i)))
		if len(writes) == 100 || i == from+count-1 {
			require.NoError(p.t, a.ApplyWrites(p.t.Context(), writes))
			writes = nil
		}
	}
}

func numbered(i int) syntax.RecordKey { return syntax.RecordKey(fmt.Sprintf("n%05d", i)) }

// bystander is an account whose records concern nobody here.
func (p *people) bystander(pds *network.PDS) *network.Account {
	p.t.Helper()
	a, err := pds.CreateAccount(p.t.Context(), "bystander")
	require.NoError(p.t, err)
	_, err = a.CreateRecord(p.t.Context(), "com.example.note", map[string]any{"$type": "com.example.note", "text": "not ours"})
	require.NoError(p.t, err)
	return a
}

// recovered waits until the index is what the PDSes hold.
func (p *people) recovered(d *deployment, ix *rig.Process) {
	p.t.Helper()
	p.follow(d, ix)
	d.equal(d.snapshot(), p.truth(), "after recovery")
	require.Empty(p.t, d.letterStages(), "nothing of what was written is invalid")
}

// comesAndGoes has an account's records vanish with its deactivation and come back.
func (p *people) comesAndGoes(d *deployment, ix *rig.Process, a *network.Account) {
	p.t.Helper()
	want := p.truth()
	require.NoError(p.t, a.Deactivate(p.t.Context()))
	d.accountIs(a.DID, "deactivated", ix)
	hidden := truth{}
	for key, entry := range want {
		if key.DID != a.DID {
			hidden[key] = entry
		}
	}
	require.Less(p.t, len(hidden), len(want))
	d.equal(d.snapshot(), hidden, "while an account is deactivated")
	require.NoError(p.t, a.Activate(p.t.Context()))
	d.accountIs(a.DID, "active", ix)
	p.recovered(d, ix)
}

// deleted has an account deleted, and waits until nothing of it is left but its state.
func (p *people) deleted(d *deployment, ix *rig.Process, a *network.Account) {
	p.t.Helper()
	for _, collection := range followed {
		p.removed = append(p.removed, a.Key(collection, "least"))
	}
	require.NoError(p.t, a.PDS.DeleteAccount(p.t.Context(), a.DID))
	p.all = p.all[:len(p.all)-1]
	d.accountIs(a.DID, "deleted", ix)
	rig.Eventually(p.t, "the deleted account's records to be gone", func() (bool, string) {
		var left int
		d.Rows(func(row pgx.Rows) error { return row.Scan(&left) }, "SELECT count(*) FROM records WHERE did = $1", a.DID)
		return left == 0, fmt.Sprintf("%d are left", left)
	}, ix)
	p.recovered(d, ix)
}

// follows tells whether the index has a repository.
func (d *deployment) follows(did syntax.DID) bool {
	d.T.Helper()
	var found bool
	d.Rows(func(row pgx.Rows) error { return row.Scan(&found) }, "SELECT EXISTS (SELECT FROM repos WHERE did = $1)", did)
	return found
}
