package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestReindexFromNetwork fetches everything anew from a network whose stream no longer
// has its early events, while clients read and accounts write: once given up, once
// killed in the middle, then to its end. What was damaged in the served tables is
// right afterwards, in the projections too, and no answer was wrong on the way.
func TestReindexFromNetwork(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 31, Window: window}, simulate.ServerConfig{})
	p := &past{world: w, maker: fixture.New(31)}
	p.begin()
	late := w.account("late")
	d := deploy(t, w.upstream(), "LAYERS_FOREIGN_COLLECTIONS="+string(note))
	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.whole(w, ix)
	d.Settle(ix)
	d.verified()
	api := d.api()
	stable := truthOf(w.World)
	api.gettable(stable)

	damaged := d.damage(stable)
	for _, key := range damaged {
		delete(stable, key)
	}
	wrong := d.snapshot()
	_, found := wrong.records[damaged[0]]
	require.False(t, found, "the damage was to be done")

	reads, writes := reading(api, stable), w.writing(late)
	given := rig.Launch(t, d.Env, "reindex", "reindex", "--from", "network")
	d.filling(given)
	given.Kill()
	require.Contains(t, d.Run("reindex", "--from", "network", "--abort"), "the new tables are dropped")
	require.False(t, d.exists("layers_next"))

	killed := rig.Launch(t, d.Env, "reindex", "reindex", "--from", "network")
	d.filling(killed)
	killed.Kill()
	require.True(t, d.exists("layers_next"))
	output := d.Run("reindex", "--from", "network")
	t.Log(output)
	require.Contains(t, output, "going on with the new tables of an earlier run")
	require.Contains(t, output, "was missing: "+damaged[0].String())
	require.Contains(t, output, "was different: "+damaged[1].String())
	require.Contains(t, output, "was different: "+damaged[2].String())
	require.Contains(t, output, "switched to the new tables")
	require.Regexp(t, `(?m)^\d+ differences, 0 of them not on their way$`, output)
	for _, schema := range []string{"layers_next", "layers_old"} {
		require.False(t, d.exists(schema), schema)
	}

	time.Sleep(500 * time.Millisecond) // some more reads and writes
	require.Positive(t, writes(), "accounts were to write meanwhile")
	count, problems := reads()
	require.Empty(t, problems)
	require.Positive(t, count, "clients were to read meanwhile")
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	all := truthOf(w.World, note)
	d.equal(d.snapshot(), all, "after everything was fetched anew")
	d.verified()
	d.projected(all)
	api.gettable(truthOf(w.World))
	require.Contains(t, ix.Output(), "lost the writer's lock", "the indexer was to take up the new tables")
	t.Logf("%d rounds of reads were right", count)
	ix.Stop()
}

// damage deletes one record behind the program's back, changes the value of one, and
// value and CID of another.
func (d *deployment) damage(all truth) []record.Key {
	d.t.Helper()
	keys := all.in(expression).keys()[:3]
	const where = " WHERE collection = $1 AND did = $2 AND rkey = $3"
	args := func(key record.Key) []any { return []any{key.Collection, key.DID, key.Rkey} }
	d.change("DELETE FROM records"+where, args(keys[0])...)
	d.change("UPDATE records SET value = '{\"damaged\": true}'"+where, args(keys[1])...)
	d.change("UPDATE records SET value = '{\"damaged\": true}', cid = (SELECT cid FROM records WHERE collection = $4 LIMIT 1)"+where,
		append(args(keys[2]), annotationLayer)...)
	return keys
}

// filling waits until a run has fetched some repositories into the new tables, but not all.
func (d *deployment) filling(run *rig.Process) {
	d.t.Helper()
	rig.Eventually(d.t, "the new tables to be filled in part", func() (bool, string) {
		var fetched, left int
		err := d.Database.QueryRow(d.t.Context(),
			"SELECT (SELECT count(*) FROM layers_next.repos WHERE complete AND sync = 'synchronized'), (SELECT count(*) FROM layers_next.resyncs)").Scan(&fetched, &left)
		return err == nil && fetched > 2 && left > 2, fmt.Sprintf("%d fetched, %d to be fetched: %v", fetched, left, err)
	}, run)
}

func (d *deployment) exists(schema string) (exists bool) {
	d.t.Helper()
	require.NoError(d.t, d.Database.QueryRow(d.t.Context(), "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&exists))
	return exists
}

// reading asks for these records, over and over, and compares the answers.
func reading(c *client, want truth) (stop func() (rounds int, problems []string)) {
	end, rounds, problems := make(chan struct{}), 0, []string(nil)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			for _, key := range want.keys() {
				v, err := c.get(key)
				if err == nil {
					err = simulated(want[key]).sameValue(v.Value, v.CID)
				}
				if err != nil && len(problems) < 10 {
					problems = append(problems, fmt.Sprintf("%s: %s: %v", time.Now().UTC().Format(time.TimeOnly), key, err))
				}
			}
			rounds++
		}
	})
	stop = sync.OnceValues(func() (int, []string) {
		close(end)
		running.Wait()
		return rounds, problems
	})
	c.t.Cleanup(func() { stop() })
	return stop
}

// writing has an account write until it is stopped: new records, some of which it
// changes or deletes.
func (w *world) writing(did syntax.DID) (stop func() int) {
	end, n := make(chan struct{}), 0
	var running sync.WaitGroup
	running.Go(func() {
		for ; ; n++ {
			select {
			case <-end:
				return
			case <-time.After(200 * time.Millisecond):
			}
			rkey := func(n int) syntax.RecordKey { return syntax.RecordKey(fmt.Sprintf("live%d", n)) }
			writes := []simulate.Write{simulate.Create(expression, rkey(n), fixture.Full(expression))}
			if n%3 == 2 {
				writes = append(writes, simulate.Delete(expression, rkey(n-1)))
			}
			if _, err := w.Commit(did, writes...); err != nil {
				w.t.Error(strings.TrimSpace(err.Error()))
				return
			}
		}
	})
	stop = sync.OnceValue(func() int {
		close(end)
		running.Wait()
		return n
	})
	w.t.Cleanup(func() { stop() })
	return stop
}
