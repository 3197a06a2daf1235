package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestReindexIsKilledAndGoesOn kills the rebuild of both projections again and again
// while accounts write and the API is read. The last run ends with both projections
// equal to PostgreSQL, and every answer was right all along.
func TestReindexIsKilledAndGoesOn(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 9}, simulate.ServerConfig{})
	d := deploy(t, w.upstream())
	did := w.account("author")
	for _, p := range fixture.Corpus(3, []syntax.DID{did}, 30) {
		w.commit(p.Key.DID, simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value))
	}
	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	api, stable := d.api(), truthOf(w.World)

	later := w.account("late")
	end := make(chan struct{})
	var meanwhile sync.WaitGroup
	meanwhile.Go(func() {
		for _, p := range fixture.Corpus(4, []syntax.DID{later}, 20) {
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
				_, err := w.Commit(p.Key.DID, simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value))
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	kills := 0
	for _, after := range []string{"search: fill", "graph: fill", "graph: follow", "search: end"} {
		p := rig.Launch(t, d.Env, "reindex", "reindex", "--to", "search", "--to", "graph")
		ended := func() bool { return !p.Alive() }
		rig.Eventually(t, "the rebuild to say "+after, func() (bool, string) {
			return strings.Contains(p.Output(), after) || ended(), p.Tail(300)
		})
		if !ended() {
			p.Kill()
			kills++
		}
		api.gettable(stable)
	}
	require.Positive(t, kills)
	require.Contains(t, d.Run("reindex", "--to", "search", "--to", "graph"), "0 differences")
	close(end)
	meanwhile.Wait()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	api.gettable(truthOf(w.World))
	require.Contains(t, d.Run("verify", "--deep"), "0 differences")
	ix.Stop()
}
