package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
)

// TestDataLoss (G4) has hosts lose what was written last, of which they tell by #sync
// alone.
func TestDataLoss(t *testing.T) {
	l := newLive(t, simulate.Config{}, 10)
	then := l.LastSeq()
	l.play(150)
	l.level()
	for _, did := range l.dids[:5] {
		l.lose(did, then)
	}
	l.play(50)
	l.level()
	l.equal(l.ix)
	l.end()
}

// TestOutdatedCursor (G8, G7) has the indexer away for longer than the host keeps
// events. Accounts come and go meanwhile, of which it is never told.
func TestOutdatedCursor(t *testing.T) {
	l := newLive(t, simulate.Config{Window: 150}, 14)
	back, changed := l.dids[4], l.dids[5]
	l.status(back, simulate.Deactivated)
	l.status(changed, simulate.Deactivated)
	l.equal(l.ix)
	l.ix.Stop()
	l.account()
	for i, status := range []simulate.Status{simulate.Deactivated, simulate.Suspended, simulate.TakenDown, simulate.Deleted} {
		l.status(l.dids[i], status)
	}
	l.status(back, simulate.Active)
	l.status(changed, simulate.Deleted)
	missed := l.LastSeq()
	l.play(600)
	frames, err := l.Frames(0, 1)
	require.NoError(t, err)
	require.Greater(t, frames[0].Seq, missed, "the host still has the events that were to be missed")
	l.ix = l.Indexer("--no-workers")
	l.equal(l.ix)
	for i, status := range []simulate.Status{simulate.Active, simulate.Deleted} { // the stream goes beyond what was asked for
		l.status(l.dids[i], status)
	}
	l.play(50)
	l.equal(l.ix)
	l.end()
}

// TestEverythingAtOnce has all that can go wrong happen at once, while accounts write,
// rotate their keys, come and go, and the indexer is killed now and then. When it ends,
// the index is what it should be, by itself.
func TestEverythingAtOnce(t *testing.T) {
	l := newLive(t, simulate.Config{KeepDeleted: true}, 20)
	pick := func(one int, salt string) fault.Pick { return fault.OneIn(one, salt, 1<<62) }
	faults := []fault.Fault{
		fault.Drop(pick(150, "drop")), fault.Duplicate(pick(40, "duplicate")), fault.Swap(pick(60, "swap"), false),
		fault.Rewind(pick(100, "rewind"), 30), fault.CorruptNoise(pick(150, "noise")),
		fault.CorruptSignature(pick(200, "signature")), fault.CorruptBlocks(pick(200, "record"), fault.Record),
		fault.WrongKey(pick(200, "key")), fault.Disconnect(pick(120, "disconnect")),
		fault.Refuse(fault.GetRepo, 429, "1").OneIn(4), fault.Refuse(fault.GetRepo, 500, "").OneIn(4),
		fault.Truncate(fault.GetRepo).OneIn(4), fault.Refuse(fault.Directory, 500, "").OneIn(5),
	}
	l.network.Add(faults...)
	rounds := long(25, 150)
	for round := range rounds {
		l.play(60)
		switch did := l.active(); round % 6 {
		case 0:
			if err := l.RotateKey(did); err != nil {
				t.Fatal(err)
			}
		case 1:
			l.status(did, simulate.Deactivated)
		case 2:
			l.reactivate()
		case 3:
			then := l.LastSeq()
			l.commit(did)
			l.commit(did)
			l.lose(did, then)
		case 4:
			l.account()
		case 5:
			if round%12 == 5 {
				l.status(did, simulate.Deleted)
			}
			time.Sleep(time.Duration(l.dice.Int64N(int64(300 * time.Millisecond))))
			l.ix.Kill()
			l.ix = l.Indexer("--no-workers")
		}
	}
	l.level()
	happened(t, faults...)
	l.end()
}

// reactivate makes an account active again that is deactivated.
func (l *live) reactivate() {
	status := l.statuses()
	for _, did := range l.dids {
		if status[did] == simulate.Deactivated {
			l.status(did, simulate.Active)
			return
		}
	}
}
