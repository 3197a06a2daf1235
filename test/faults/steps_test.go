package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// The steps of a transaction as they are on the wire.
const (
	toCommit  = "commit\x00"
	committed = "COMMIT\x00"
)

// struck waits for a trigger that kills the process.
func struck(t *testing.T, p *rig.Process, trigger *rig.Trigger) {
	t.Helper()
	p.Killed()
	select {
	case <-trigger.Fired:
	case <-time.After(rig.Patience):
		t.Fatalf("%s was killed, but not by the trigger", p.Name)
	}
}

// batchesAlone is an indexer that commits nothing but batches, once it is connected.
var batchesAlone = []string{"--no-workers", "--statistics-interval", "0"}

// connected waits until the indexer follows the stream.
func connected(t *testing.T, ix *rig.Process) {
	t.Helper()
	rig.Eventually(t, "the indexer to follow the stream", func() (bool, string) {
		return strings.Contains(ix.Output(), "firehose connected"), "not yet"
	}, ix)
}

// TestKilledAtCommits (G1) kills the indexer right before PostgreSQL is told to commit
// a batch, and right after it has, before the indexer hears of it.
func TestKilledAtCommits(t *testing.T) {
	a := newAuthor(t, seeded(t), simulate.Config{})
	a.accounts(10)
	a.play(600)
	a.close()
	l := newLab(t, a, rig.OpenQueues(t), streamAlone)
	gate := fault.NewGate()
	l.network.Add(gate)
	database := l.Proxies.Postgres
	for i := range int64(6) {
		before := l.Cursor()
		ix := l.Indexer(batchesAlone...)
		connected(t, ix)
		way, bytes := rig.ToStore, toCommit
		if i%2 == 1 {
			way, bytes = rig.FromStore, committed
		} else { // what the gate has let pass already is to be committed before
			l.Reach(a.LastSeq()*i/6, ix)
			before = l.Cursor()
		}
		trigger := database.On(way, bytes, 1, func() bool {
			_ = ix.Strike()
			<-ix.Ended
			return false
		})
		gate.Open(a.LastSeq() * (i + 1) / 6)
		struck(t, ix, trigger)
		cursor := l.prefix("after a kill at a commit")
		if i%2 == 1 {
			require.Greater(t, cursor, before, "PostgreSQL has said that it committed")
		} else {
			require.Equal(t, before, cursor, "PostgreSQL was not told to commit")
		}
	}
	gate.Open(a.LastSeq())
	ix := l.Indexer("--no-workers")
	connected(t, ix) // a process that has just begun does not know SIGTERM yet
	l.equal(ix)
	ix.Stop()
}

// TestKilledInMigration kills `layers migrate` in the middle of a migration. The next
// one goes on from there.
func TestKilledInMigration(t *testing.T) {
	for _, pattern := range []string{"CREATE TABLE clock", "CREATE TABLE outbox", "CREATE TABLE dead_letters", "INSERT INTO goose_db_version"} {
		for _, way := range []bool{true, false} {
			d := rig.Prepare(t, rig.OpenQueues(t), rig.Upstream{Relay: "ws://relay.invalid", PLC: "http://plc.invalid"})
			started := make(chan *rig.Process, 1)
			trigger := d.Proxies.Postgres.On(rig.ToStore, pattern, 1, func() bool {
				p := <-started
				_ = p.Strike()
				<-p.Ended
				return way
			})
			p := rig.Launch(t, d.Env, "migrate", "migrate")
			started <- p
			struck(t, p, trigger)
			d.Run("migrate")
			var tables int
			require.NoError(t, d.Database.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE tablename IN ('clock', 'outbox', 'dead_letters', 'annotations')").Scan(&tables))
			require.Equal(t, 4, tables)
		}
	}
}
