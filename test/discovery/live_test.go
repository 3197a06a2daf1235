package discovery

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// event is what a follower is told.
type event struct {
	Kind, Action, URI, CID, DID, Name string
	Cursor                            int64
}

// followed is what a follower has heard over several connections, each taken up where
// the one before ended, at the next process.
type followed struct {
	events      []event
	at          int64
	connections int
	count       atomic.Int64
}

// listen reads one connection to its end, or until it is told of a record.
func (f *followed) listen(ctx context.Context, base, last string) (done bool) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/events?cursor="+strconv.FormatInt(f.at, 10), nil)
	if err != nil {
		return true
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false
	}
	f.connections++
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e event
		if json.Unmarshal([]byte(data), &e) != nil {
			return false // cut off in the middle
		}
		if e.Kind != "record" && e.Kind != "account" {
			continue
		}
		f.events, f.at = append(f.events, e), e.Cursor
		f.count.Add(1)
		if e.URI == last {
			return true
		}
	}
}

// TestEventsSurviveKills follows the index from its beginning while the indexer and the
// API processes are killed, and requires that nothing is lost, repeated or out of order.
func TestEventsSurviveKills(t *testing.T) {
	t.Parallel()
	sim, err := simulate.NewWorld(simulate.Config{Seed: 23})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	w := &world{World: sim, t: t, server: simulate.NewServer(sim, simulate.ServerConfig{})}
	require.NoError(t, w.server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, w.server.Stop()) })
	author, err := w.CreateAccount("esther")
	require.NoError(t, err)
	other, err := w.CreateAccount("farid")
	require.NoError(t, err)
	planned := fixture.Corpus(5, []syntax.DID{author, other}, 30)

	// The order in which events come is the stream's alone: a repository that is fetched
	// meanwhile would come in another.
	d := rig.Deploy(t, rig.OpenQueues(t), w.upstream(), "LAYERS_BACKFILL=false")
	ix := d.Indexer()
	w.write(planned[0].Key, record.Create, planned[0].Value)
	d.Reach(w.LastSeq(), ix) // the log has begun
	addresses := []string{rig.FreeAddress(t), rig.FreeAddress(t)}
	var bases []string
	var replicas []*rig.Process
	for _, address := range addresses {
		base, p := d.Replica(address)
		bases, replicas = append(bases, base), append(replicas, p)
	}
	last := record.Key{DID: author, Collection: corpus, Rkey: "thelastofall"}
	f := &followed{}
	told := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(told)
		for n := 0; ctx.Err() == nil; n++ {
			if f.listen(ctx, bases[n%len(bases)], last.String()) {
				return
			}
			time.Sleep(rig.PollEvery)
		}
	}()
	part := len(planned) / 6
	for i, p := range planned[1:] {
		w.write(p.Key, record.Create, p.Value)
		if i%9 == 0 { // what was written before is gone, or another
			w.write(p.Key, record.Delete, nil)
		}
		if i%part == part-1 {
			switch i / part % 3 {
			case 0:
				ix.Kill()
				ix = d.Indexer()
			case 1, 2:
				n := i / part % 3 % 2
				replicas[n].Kill()
				_, replicas[n] = d.Replica(addresses[n])
			}
		}
	}
	value := maps.Clone(planned[slices.IndexFunc(planned, func(p fixture.Planned) bool { return p.Key.Collection == corpus })].Value)
	w.write(last, record.Create, value)
	rig.Eventually(t, "the follower to hear the last", func() (bool, string) {
		select {
		case <-told:
			return true, ""
		default:
			return false, fmt.Sprint(f.count.Load())
		}
	}, ix)

	before := int64(0)
	state := map[string]string{}
	for _, e := range f.events {
		require.Greater(t, e.Cursor, before, "in order, and once")
		before = e.Cursor
		switch e.Action {
		case "create":
			require.NotContains(t, state, e.URI)
			state[e.URI] = e.CID
		case "update":
			require.Contains(t, state, e.URI)
			state[e.URI] = e.CID
		case "delete":
			require.Contains(t, state, e.URI)
			delete(state, e.URI)
		}
	}
	require.Equal(t, w.cids(), state, "whoever has heard all events has the index")
	require.Greater(t, f.connections, 2)
	for _, base := range bases { // and whoever asks later hears the same, of anyone
		again := &followed{}
		require.True(t, again.listen(ctx, base, last.String()))
		require.Equal(t, f.events, again.events)
	}
	ix.Stop()
}
