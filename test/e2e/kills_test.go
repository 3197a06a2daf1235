package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

const (
	kills = 20
	ahead = 2000 // events that may be sent beyond those that a kill is for

	// mostDelay is how long after the event that it is for a kill comes, at most. A fast
	// machine may commit all that is sent in that time, so there are kills too that come
	// within a 4th of it, a 16th and a 64th; a slow one may commit nothing, so those that
	// come latest wait for some progress before.
	mostDelay = 1200 * time.Millisecond
	delays    = 4
)

// delayOf is the longest delay of a kill. Of two in a row, which have the same, one
// loses Redis too.
func delayOf(kill int) time.Duration { return mostDelay >> (2 * (kill / 2 % delays)) }

// TestKills kills the indexer at random points of the stream, without a chance to
// do anything. After each, what PostgreSQL holds is exactly what there was to hold
// up to its cursor; in the end nothing is lost or left over, in any store. Every
// other time Redis is lost too.
//
// A kill does not show a missing fsync, since the page cache survives it.
func TestKills(t *testing.T) {
	dice := seeded(t)
	s := newStream(t)
	d := deploy(t, s.upstream(), "LAYERS_BACKFILL=false") // which would show it the stream's future
	last := s.LastSeq()
	before, advanced, busy := int64(0), 0, 0
	for i := range kills {
		// Each kill has a section of the stream, and the gate keeps the indexer from
		// running far beyond it. It comes a moment after a random event of the section
		// has been sent: before that is committed, or after, or meanwhile.
		start, end := (last-2*ahead)*int64(i)/kills, (last-2*ahead)*int64(i+1)/kills
		point := start + 1 + dice.Int64N(end-start)
		moment := time.Duration(dice.Int64N(int64(delayOf(i))))
		sent := s.sending(point)
		s.open(end + ahead)
		ix := d.Indexer()
		select {
		case <-sent:
		case <-ix.Ended:
			t.Fatalf("%s has ended: %s", ix.Name, ix.Failure())
		case <-time.After(rig.Patience):
			t.Fatalf("event %d has not been sent after %s", point, rig.Patience)
		}
		if delayOf(i) == mostDelay {
			d.Reach(before+1, ix)
		}
		time.Sleep(moment)
		ix.Kill()
		if i%2 == 1 { // otherwise Redis still has the tasks that were under way, and hands them out again
			require.NoError(t, d.Redis.FlushDB(t.Context()).Err())
		}

		after := d.snapshot()
		require.GreaterOrEqual(t, after.cursor, before, "the cursor went back")
		require.LessOrEqual(t, after.cursor, s.latest(), "the cursor ran ahead")
		require.Less(t, after.cursor, last, "the stream was to be unfinished")
		t.Logf("kill %d: %s after event %d was sent; sent up to %d, committed from %d to %d",
			i+1, moment.Round(time.Millisecond), point, s.latest(), before, after.cursor)
		if after.cursor < s.latest() {
			busy++
		}
		if after.cursor > before {
			advanced++
		}
		before = after.cursor
		d.equal(after, truthAt(s.World, after.cursor), fmt.Sprintf("after kill %d", i+1))
	}
	t.Logf("of %d kills, %d with events sent and not yet committed, %d after some progress", kills, busy, advanced)
	require.GreaterOrEqual(t, busy, kills/5, "kills are to come while the indexer is at work")
	require.GreaterOrEqual(t, advanced, kills/5, "kills are to come after some progress")

	s.open(last)
	ix := d.Indexer()
	d.Reach(last, ix)
	d.Settle(ix)
	d.projected(truthOf(s.World))
	d.verified()
	ix.Stop()
}
