package faults

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// mostMemory is what an indexer's pod requests.
const mostMemory = 512 << 20

// slow is how long an answer of a slow store takes.
const slow = 5 * time.Second

// TestSlowStores (G9) has each store take five seconds for each answer, while the
// stream has more to give than the indexer may hold. It stops reading, and its memory
// stays within its pod's. When the stores are themselves again, it goes on.
func TestSlowStores(t *testing.T) {
	w := heavy(t)
	a := &author{World: w, t: t, dice: rand.New(rand.NewPCG(1, 1))}
	l := newLab(t, a, rig.OpenStores(t))
	gate := fault.NewGate()
	l.network.Add(gate)
	last := w.LastSeq()
	gate.Open(last / 10)
	ix := l.Indexer()
	l.Reach(last/10, ix)
	proxies := map[string]*rig.Proxy{"PostgreSQL": l.Proxies.Postgres, "Redis": l.Proxies.Redis,
		"Elasticsearch": l.Proxies.Elasticsearch, "Neo4j": l.Proxies.Neo4j}
	rig.Eventually(t, "all projections to be at work", func() (bool, string) {
		var targets int
		err := l.Database.QueryRow(t.Context(), "SELECT count(DISTINCT target) FROM outbox").Scan(&targets)
		require.NoError(t, err)
		return targets == 3, fmt.Sprintf("%d are", targets)
	}, ix)
	// The projections first: while Redis is slow, asynq gives up before they are asked.
	l.Proxies.Elasticsearch.Delay(slow)
	l.Proxies.Neo4j.Delay(slow)
	gate.Open(last / 5)
	rig.Eventually(t, "the projections to be slow", func() (bool, string) {
		late := []int64{l.Proxies.Elasticsearch.Delayed.Load(), l.Proxies.Neo4j.Delayed.Load()}
		return min(late[0], late[1]) > 0, fmt.Sprintf("answers that came late: %d", late)
	}, ix)
	l.Proxies.Postgres.Delay(slow)
	l.Proxies.Redis.Delay(slow)
	gate.Open(last)
	steady := 0
	for before := int64(-1); steady < 10; time.Sleep(time.Second) {
		require.True(t, ix.Alive(), "the indexer has ended: %s", ix.Failure)
		require.Less(t, ix.Memory(), int64(mostMemory))
		if sent := gate.Latest(); sent == before {
			steady++
		} else {
			steady, before = 0, sent
		}
	}
	require.Less(t, gate.Latest(), last, "the socket was to be left unread")
	t.Logf("at rest with %d of %d events sent, %d applied, %d MiB", gate.Latest(), last, l.Cursor(), ix.Memory()>>20)
	for name, p := range proxies {
		require.Positive(t, p.Delayed.Load(), "%s was never slow", name)
		t.Logf("%s: %d answers came late", name, p.Delayed.Load())
		p.Restore()
	}
	l.Reach(last, ix)
	require.Less(t, ix.Memory(), int64(mostMemory))
	t.Logf("the indexer had %d MiB at most", ix.Memory()>>20)
	ix.Kill()
}

// heavy is a stream of large commits.
func heavy(t *testing.T) *simulate.World {
	t.Helper()
	w, err := simulate.NewWorld(simulate.Config{Seed: 21, Dir: t.TempDir()})
	require.NoError(t, err)
	g, err := simulate.NewGenerator(w, simulate.Script{Authors: 8, PerCommit: 50, Records: long(80_000, 400_000)})
	require.NoError(t, err)
	defer g.Stop()
	require.NoError(t, g.Run(t.Context(), 0))
	return w
}

// TestStoreConnections (G1, G9) does to PostgreSQL's connections, one after another,
// what networks do, in the middle of the stream.
func TestStoreConnections(t *testing.T) {
	a := newAuthor(t, seeded(t), simulate.Config{KeepDeleted: true})
	a.accounts(10)
	a.play(1500)
	a.close()
	l := newLab(t, a, rig.OpenQueues(t), streamAlone)
	gate := fault.NewGate()
	l.network.Add(gate)
	ix := l.Indexer("--no-workers")
	database, last, part := l.Proxies.Postgres, a.LastSeq(), a.LastSeq()/6
	gate.Open(part)
	l.Reach(part, ix)

	for k := range int64(3) { // connections are reset, and can be made anew at once
		before, until := database.Severed.Load(), part+(k+1)*part/3
		gate.Open(until)
		database.Reset()
		require.Greater(t, database.Severed.Load(), before)
		l.Reach(until, ix)
	}
	l.prefix("after resets")

	for i, way := range []rig.Direction{rig.ToStore, rig.FromStore} { // one way stands still
		before := database.Held.Load()
		database.Hold(way)
		gate.Open(part * int64(3+i))
		rig.Eventually(t, "traffic to be held", func() (bool, string) { return database.Held.Load() > before, "none is" }, ix)
		database.Restore()
		l.Reach(part*int64(3+i), ix)
		l.prefix("after one way stood still")
	}

	database.Cut()
	gate.Open(part * 5)
	rig.Eventually(t, "connections to be refused", func() (bool, string) { return database.Refused.Load() > 3, "not yet" }, ix)
	database.Restore()
	l.Reach(part*5, ix)
	gate.Open(last)
	l.equal(ix)
	ix.Stop()
}

// TestVanishedDatabase (G1) has PostgreSQL's machine vanish without a word, in the
// middle of the stream: what waits for it has to find out by itself.
func TestVanishedDatabase(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, seeded(t), simulate.Config{KeepDeleted: true})
	a.accounts(10)
	a.play(300)
	a.close()
	l := newLab(t, a, rig.OpenQueues(t), streamAlone)
	gate := fault.NewGate()
	l.network.Add(gate)
	ix := l.Indexer("--no-workers")
	database, half := l.Proxies.Postgres, a.LastSeq()/2
	gate.Open(half)
	l.Reach(half, ix)
	database.Vanish()
	gate.Open(a.LastSeq())
	rig.Eventually(t, "traffic to go nowhere", func() (bool, string) { return database.Lost.Load() > 0, "none does" }, ix)
	require.Equal(t, half, l.prefix("while the database is away"))
	database.Restore()
	l.equal(ix)
	ix.Stop()
}

// TestProjectionConnections (G6, G9) does the same to Redis, Elasticsearch and Neo4j,
// all at once. The stream goes on meanwhile, and the projections are right in the end.
func TestProjectionConnections(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, seeded(t), simulate.Config{KeepDeleted: true})
	a.accounts(10)
	a.play(600)
	a.close()
	l := newLab(t, a, rig.OpenStores(t), streamAlone)
	gate := fault.NewGate()
	l.network.Add(gate)
	ix := l.Indexer()
	stores := map[string]*rig.Proxy{"Redis": l.Proxies.Redis, "Elasticsearch": l.Proxies.Elasticsearch, "Neo4j": l.Proxies.Neo4j}
	ways := []struct {
		name    string
		begin   func(*rig.Proxy)
		counter func(*rig.Proxy) *atomic.Int64
	}{
		{"reset", (*rig.Proxy).Reset, func(p *rig.Proxy) *atomic.Int64 { return &p.Severed }},
		{"held towards the store", func(p *rig.Proxy) { p.Hold(rig.ToStore) }, func(p *rig.Proxy) *atomic.Int64 { return &p.Held }},
		{"held from the store", func(p *rig.Proxy) { p.Hold(rig.FromStore) }, func(p *rig.Proxy) *atomic.Int64 { return &p.Held }},
		{"vanished", (*rig.Proxy).Vanish, func(p *rig.Proxy) *atomic.Int64 { return &p.Lost }},
	}
	last, part := a.LastSeq(), a.LastSeq()/int64(len(ways)+1)
	gate.Open(part)
	l.Reach(part, ix)
	l.Settle(ix)
	for i, way := range ways {
		before := map[string]int64{}
		struck := func(name string) {
			p := stores[name]
			rig.Eventually(t, name+" to be "+way.name, func() (bool, string) { return way.counter(p).Load() > before[name], "not yet" }, ix)
		}
		for name, p := range stores {
			before[name] = way.counter(p).Load()
			if name != "Redis" {
				way.begin(p)
			}
		}
		until := part * int64(i+2)
		gate.Open(until - part/2)
		struck("Elasticsearch")
		struck("Neo4j")
		way.begin(l.Proxies.Redis) // last: without it there is no traffic to the others
		gate.Open(until)
		l.Reach(until, ix) // the stream waits for none of them
		struck("Redis")
		for _, p := range stores {
			p.Restore()
		}
	}
	gate.Open(last)
	l.equal(ix)
	l.Settle(ix)
	require.Contains(t, l.Run("verify"), "0 differences")
	ix.Stop()
}
