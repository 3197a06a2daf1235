package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

const kills = 100

// TestHundredKills (G1) kills the indexer a hundred times, at random moments of the
// stream. After each, PostgreSQL holds exactly what there was to hold up to its cursor.
//
// A kill does not show a missing fsync, since the page cache survives it.
func TestHundredKills(t *testing.T) {
	a := newAuthor(t, seeded(t), simulate.Config{KeepDeleted: true})
	a.accounts(20)
	a.play(3000)
	last := a.close()
	l := newLab(t, a, rig.OpenQueues(t), streamAlone)
	gate := fault.NewGate()
	l.network.Add(gate)
	before, busy, advanced := int64(0), 0, 0
	for i := range int64(kills) {
		// Each kill has a section of the stream, and comes a moment after one of the
		// section's events has been sent: before that is committed, or after, or meanwhile.
		start, end := last*i/kills, last*(i+1)/kills
		point := start + 1 + a.dice.Int64N(end-start)
		gate.Open(end)
		ix := l.Indexer("--no-workers")
		await(t, ix, func(ctx context.Context) { gate.Passed(ctx, point) }, fmt.Sprintf("event %d to be sent", point))
		if i%2 == 1 { // not before something of the section is there
			rig.Eventually(t, "some progress", func() (bool, string) { return l.Cursor() > before, "none yet" }, ix)
		}
		if i%4 > 0 { // else at once, with the event on its way, however fast the machine is
			time.Sleep(time.Duration(a.dice.Int64N(int64(60 * time.Millisecond))))
		}
		ix.Kill()
		cursor := l.prefix(fmt.Sprintf("after kill %d", i+1))
		require.GreaterOrEqual(t, cursor, before, "the cursor went back")
		require.LessOrEqual(t, cursor, gate.Latest(), "the cursor ran ahead")
		if cursor < gate.Latest() {
			busy++
		}
		if cursor > before {
			advanced++
		}
		before = cursor
	}
	t.Logf("of %d kills, %d with events sent and not yet committed, %d after some progress", kills, busy, advanced)
	require.GreaterOrEqual(t, busy, kills/5, "kills are to come while the indexer is at work")
	require.GreaterOrEqual(t, advanced, kills/5, "kills are to come after some progress")
	gate.Open(a.LastSeq())
	ix := l.Indexer("--no-workers")
	l.equal(ix)
	happened(t, gate)
	ix.Stop()
}

// await does something that takes a context and ends with it, and fails the test if
// that takes too long or the process ends meanwhile.
func await(t *testing.T, p *rig.Process, do func(context.Context), what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	defer cancel()
	go func() {
		select {
		case <-p.Ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	do(ctx)
	if !p.Alive() {
		t.Fatalf("waiting for %s: %s has ended: %s", what, p.Name, p.Failure())
	}
	require.NoError(t, ctx.Err(), "waiting for %s", what)
}
