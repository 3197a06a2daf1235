package faults

import (
	"testing"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// live is a network that goes on while it is read.
type live struct {
	*lab
	ix *rig.Process
}

func newLive(t *testing.T, cfg simulate.Config, accounts int) *live {
	t.Helper()
	a := newAuthor(t, seeded(t), cfg)
	for range accounts {
		a.account()
	}
	a.play(accounts * 10)
	l := &live{lab: newLab(t, a, rig.OpenQueues(t))}
	l.ix = l.Indexer("--no-workers")
	return l
}

// level waits until the indexer has come to the end of the stream.
func (l *live) level() { l.Reach(l.LastSeq(), l.ix) }

// end ends all faults, has everyone write once more, and requires that the index is
// what it should be.
func (l *live) end() {
	l.t.Helper()
	l.network.End()
	l.close()
	l.equal(l.ix)
	l.ix.Stop()
}

// TestKeyRotation (G4) rotates keys in mid-stream. Commits by the new key hold, also
// where the first one comes before the directory has it; those by the old key that
// come after do not.
func TestKeyRotation(t *testing.T) {
	l := newLive(t, simulate.Config{}, 12)
	l.level()
	for range 4 {
		for _, did := range l.dids {
			if l.dice.IntN(2) == 0 {
				if err := l.RotateKey(did); err != nil {
					t.Fatal(err)
				}
			}
			l.commit(did)
		}
		l.play(40)
		l.level()
	}
	l.end()
}

// TestAccountStatus (G7) changes accounts' statuses while they write, and replays old
// events of their accounts after newer ones.
func TestAccountStatus(t *testing.T) {
	l := newLive(t, simulate.Config{}, 16)
	rewind := fault.Rewind(func(f simulate.Frame) bool { return f.Seq%37 == 0 }, 60)
	l.network.Add(rewind) // holds for connections from now on
	l.ix.Kill()
	l.ix = l.Indexer("--no-workers")
	statuses := []simulate.Status{simulate.Deactivated, simulate.Suspended, simulate.TakenDown, "throttled", "desynchronized", "something new"}
	for i, did := range l.dids[:12] {
		l.status(did, statuses[i%len(statuses)])
		l.play(15)
	}
	l.level()
	l.equal(l.ix)
	for i, did := range l.dids[:12] {
		if i%2 == 0 {
			l.status(did, simulate.Active)
			l.commit(did)
		}
		l.play(10)
	}
	l.level()
	happened(t, rewind)
	l.end()
}
