package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestHTTPFaults breaks chains, so that repositories must be fetched, and has fetches
// go wrong in each way for a while.
func TestHTTPFaults(t *testing.T) {
	h := history()
	first := h.until / 3
	stranger := string(h.dids[0])
	flip := func(part fault.Part) *fault.HTTP {
		return fault.Rewrite("corrupt "+string(part)+" in the CAR", fault.GetRepo, func(car []byte) []byte { return fault.Flip(car, part) })
	}
	without := func(part fault.Part) *fault.HTTP {
		return fault.Rewrite("missing "+string(part)+" in the CAR", fault.GetRepo, func(car []byte) []byte { return fault.Without(car, part) })
	}
	tried := []*fault.HTTP{ // one of each class
		fault.Refuse(fault.GetRepo, 429, "1").AtMost(2),
		fault.Refuse(fault.GetRepo, 500, "").AtMost(2),
		fault.HangMidway(fault.GetRepo).AtMost(2),
		fault.Truncate(fault.GetRepo).AtMost(6),
		fault.Endless(fault.GetRepo).AtMost(1),
		fault.Redirect(fault.GetRepo, "http://127.0.0.1:1/").AtMost(2),
		fault.Another(stranger).AtMost(6),
		flip(fault.Record).AtMost(6),
		without(fault.Node).AtMost(6),
		fault.Refuse(fault.Directory, 500, "").AtMost(20),
		fault.Truncate(fault.ListCollections).AtMost(5),
		fault.Unsupported(fault.ListCollections),
		fault.Refuse(fault.Subscribe, 503, "").AtMost(3),
	}
	others := []*fault.HTTP{
		fault.Refuse(fault.GetRepo, 503, "1").AtMost(2),
		fault.Refuse(fault.GetRepo, 400, "").AtMost(6),
		fault.Hang(fault.GetRepo).AtMost(2),
		fault.Drip(fault.GetRepo, 2000, 5*time.Millisecond).AtMost(6),
		fault.Late(fault.GetRepo, 300*time.Millisecond).AtMost(20),
		fault.Cut(fault.GetRepo).AtMost(2),
		flip(fault.Header).AtMost(6),
		flip(fault.Commit).AtMost(6),
		flip(fault.Node).AtMost(6),
		flip(fault.CID).AtMost(6),
		without(fault.Record).AtMost(6),
		fault.Refuse(fault.Directory, 429, "1").AtMost(20),
		fault.Hang(fault.Directory).AtMost(2),
		fault.Truncate(fault.Directory).AtMost(20),
		fault.Refuse(fault.ListCollections, 500, "").AtMost(5),
		fault.Refuse(fault.ListCollections, 429, "1").AtMost(5),
		fault.Hang(fault.ListCollections).AtMost(1),
	}
	for _, f := range withOthers(t, tried, others) {
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			survives(t, fault.Gap(first, first+120), f)
		})
	}
}

// TestStaleCopies (G4) has the network answer for a while with repositories as they
// were, which the stream has told more of.
func TestStaleCopies(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, seeded(t), simulate.Config{})
	const accounts = 4
	a.accounts(accounts)
	l := newLab(t, a, rig.OpenQueues(t), streamAlone)
	ix := l.Indexer("--no-workers")
	l.equal(ix)
	stale := fault.Stale(fault.GetRepo).AtMost(4 * accounts)
	l.network.Add(stale)
	for range 3 { // what is fetched the first time is what it will answer
		l.breakAgain()
		l.equal(ix)
	}
	require.Greater(t, stale.Fired(), int64(accounts), "repositories were to be fetched again")
	require.Contains(t, ix.Output(), "the stream has shown")
	happened(t, stale)
	ix.Stop()
}
