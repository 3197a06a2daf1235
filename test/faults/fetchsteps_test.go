package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// killAt has a process killed at the nth commit from now on: before PostgreSQL is told,
// or after it has committed and before the process hears of it.
func (l *lab) killAt(p *rig.Process, nth int64, after bool) *rig.Trigger {
	way, bytes := rig.ToStore, toCommit
	if after {
		way, bytes = rig.FromStore, committed
	}
	return l.Proxies.Postgres.On(way, bytes, nth, func() bool {
		_ = p.Strike()
		<-p.Ended
		return false
	})
}

// TestKilledInFetch (G1, G4) kills the indexer at each step of a repository's fetch:
// after it began, while the repository comes, and before and after the commit of the
// difference, of the end, and of the next one's beginning.
func TestKilledInFetch(t *testing.T) {
	a := newAuthor(t, seeded(t), simulate.Config{})
	for range 5 {
		a.account()
	}
	a.play(200)
	until := a.close()
	l := newLab(t, a, rig.OpenQueues(t), streamAlone, "LAYERS_RESYNC_CONCURRENCY=1")
	late := fault.Late(fault.GetRepo, 2*time.Second) // below LAYERS_RESYNC_ANSWER_TIME
	drop := fault.Drop(fault.OneIn(8, "fetch", until))
	l.network.Add(drop, late)
	begun := func(ix *rig.Process) { // a fetch is under way, and nothing else is
		l.Reach(l.LastSeq(), ix)
		before := late.Fired()
		rig.Eventually(t, "a fetch to begin", func() (bool, string) { return late.Fired() > before, "none has" }, ix)
	}
	for nth := range int64(4) {
		for _, after := range []bool{false, true} {
			ix := l.Indexer(batchesAlone...)
			begun(ix)
			if nth == 0 {
				ix.Kill()
				continue
			}
			struck(t, ix, l.killAt(ix, nth, after))
			l.breakAgain()
		}
	}
	happened(t, drop, late)
	l.network.End()
	ix := l.Indexer(batchesAlone...)
	l.equal(ix)
	ix.Stop()
}

// breakAgain has every repository lose a commit, so that each must be fetched again.
func (l *lab) breakAgain() {
	for _, did := range l.dids {
		l.writeFaulty(did, simulate.Dropped, l.create(did))
	}
	l.close()
}

// TestKilledInPurge (G1, G7) kills the indexer at each commit that a deletion takes.
func TestKilledInPurge(t *testing.T) {
	a := newAuthor(t, seeded(t), simulate.Config{KeepDeleted: true})
	for range 10 {
		a.account()
	}
	a.play(200)
	l := newLab(t, a, rig.OpenQueues(t), streamAlone, "LAYERS_RESYNC_CONCURRENCY=1")
	ix := l.Indexer(batchesAlone...)
	l.equal(ix)
	purges := 0
	for i, nth := range []int64{1, 1, 2, 2, 3, 3, 4, 4} {
		did, after := l.dids[i], i%2 == 1
		trigger := l.killAt(ix, nth, after)
		l.status(did, simulate.Deleted)
		select {
		case <-trigger.Fired:
			ix.Killed()
			purges++
			ix = l.Indexer(batchesAlone...)
		case <-time.After(30 * time.Second): // it took fewer commits than that
			l.Proxies.Postgres.Forget(trigger)
		}
		l.equal(ix)
		var left int
		require.NoError(t, l.Database.QueryRow(t.Context(), "SELECT count(*) FROM records WHERE did = $1", did).Scan(&left))
		require.Zero(t, left, fmt.Sprintf("killed at commit %d", nth))
	}
	require.GreaterOrEqual(t, purges, 4)
	t.Logf("killed %d times", purges)
	ix.Stop()
}
