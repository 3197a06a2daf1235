package faults

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
	"github.com/layers-pub/layers-appview/test/rig"
)

// step is something that happens in a random history. What it is in detail follows
// from its own seed, so that it stays the same where other steps are left out.
type step struct {
	what string
	seed uint64
}

// weights say how often each kind of step happens.
var weights = map[string]int{
	"commit": 40, "lost commit": 4, "forged commit": 2, "rotate": 3, "deactivate": 3, "suspend": 1, "reactivate": 4,
	"delete account": 1, "new account": 2, "data loss": 2, "#sync": 2, "restart": 2, "catch up": 5,
	"duplicates": 1, "rewinds": 1, "corruption": 1, "refusals": 1, "truncation": 1, "no directory": 1, "all well": 2,
}

func steps(dice *rand.Rand, n int) []step {
	var kinds []string
	for what, weight := range weights {
		kinds = append(kinds, slices.Repeat([]string{what}, weight)...)
	}
	slices.Sort(kinds)
	out := make([]step, n)
	for i := range out {
		out[i] = step{kinds[dice.IntN(len(kinds))], dice.Uint64()}
	}
	return out
}

// TestRandomHistories (G4, G7) plays random histories with random faults. Whatever
// happens in them, the index ends as it should. A history that ends otherwise is
// shortened, step by step, for as long as it still does.
func TestRandomHistories(t *testing.T) {
	dice := seeded(t)
	for i := range long(10, 300) {
		history := steps(dice, 20+dice.IntN(60))
		if failure := ends(t, fmt.Sprintf("history %d", i), history, rig.Patience); failure != "" {
			shortest := shrink(t, history)
			t.Fatalf("history %d ends wrongly: %s\nshortened from %d to %d steps:\n%v", i, failure, len(history), len(shortest), shortest)
		}
	}
}

// shrink leaves out as many steps as it can, so that the history still ends wrongly.
func shrink(t *testing.T, history []step) []step {
	t.Helper()
	until := time.Now().Add(2 * time.Minute)
	for size := len(history) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(history) && time.Now().Before(until); {
			shorter := slices.Delete(slices.Clone(history), from, from+size)
			// One that is not right by then counts as wrong, or this would take hours.
			if ends(t, fmt.Sprintf("with %d steps", len(shorter)), shorter, 40*time.Second) != "" {
				history = shorter
			} else {
				from += size
			}
		}
	}
	return history
}

// ends plays a history and tells what is wrong in the end, which may take a while to come
// right.
func ends(t *testing.T, name string, history []step, patience time.Duration) (failure string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		p := newPlay(t)
		p.start()
		for _, s := range history {
			p.dice = rand.New(rand.NewPCG(s.seed, 0))
			p.step(s.what)
		}
		p.network.End()
		p.close()
		failure = p.settles(patience)
		p.stop()
	})
	return failure
}

// play is a history under way, and the line that follows it, in this process.
type play struct {
	*lab
	pool *storetest.Database
	stop func()
}

func newPlay(t *testing.T) *play {
	t.Helper()
	a := newAuthor(t, rand.New(rand.NewPCG(5, 5)), simulate.Config{KeepDeleted: true})
	for range 4 {
		a.account()
	}
	network, db := &fault.Network{}, storetest.New(t)
	server := simulate.NewServer(a.World, network.Config(simulate.ServerConfig{}))
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	stores := &rig.Stores{Database: db.Pool}
	return &play{pool: db, lab: &lab{
		author: a, t: t, network: network, server: server, checked: map[string]string{}, Deployment: &rig.Deployment{Stores: stores, T: t},
	}}
}

func (p *play) start() {
	p.t.Helper()
	known, err := catalog.Load()
	require.NoError(p.t, err)
	logger := slog.New(slog.DiscardHandler)
	identities := directory.New(directory.Config{PLCURL: p.server.URL(), AllowPrivate: true, PDSHosts: []string{p.server.URL()}})
	verifier, writer := verify.New(identities), store.NewWriter(p.pool.Pool, nil, logger)
	var follow []string
	for _, collection := range collections {
		follow = append(follow, string(collection))
	}
	ix := indexer.New(indexer.Config{
		Firehose: firehose.New(firehose.Config{
			Hosts: []string{p.server.RelayURL()}, Logger: logger, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
		}, nil),
		Verifier: verifier, Catalog: known, Writer: writer, VerifiedHandle: identities.VerifiedHandle,
		Logger: logger, CursorEvery: 20 * time.Millisecond,
		Resync: resync.New(resync.Config{
			Queue: store.NewResyncs(p.pool.Pool), Contents: writer, Catalog: known, Verifier: verifier, Identities: identities,
			Follow: follow, Relays: []string{p.server.URL()}, Network: directory.Transport(true), Operator: directory.Transport(true),
			Logger: logger, HostRate: 1000, PollEvery: 20 * time.Millisecond, FirstWait: 50 * time.Millisecond, HostWait: 50 * time.Millisecond,
		}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ix.Run(ctx) }()
	p.stop = func() {
		cancel()
		require.NoError(p.t, <-done)
	}
}

func (p *play) step(what string) {
	p.t.Helper()
	did := p.dids[p.dice.IntN(len(p.dids))]
	active := p.statuses()[did] == simulate.Active
	pick := fault.OneIn(6, what, 1<<62)
	switch {
	case what == "new account":
		p.account()
	case what == "restart":
		p.stop()
		p.start()
	case what == "catch up":
		p.catchUp()
	case what == "duplicates":
		p.network.Add(fault.Duplicate(pick))
	case what == "rewinds":
		p.network.Add(fault.Rewind(pick, 15))
	case what == "corruption":
		p.network.Add(fault.CorruptNoise(pick))
	case what == "refusals":
		p.network.Add(fault.Refuse(fault.GetRepo, 500, "").OneIn(2))
	case what == "truncation":
		p.network.Add(fault.Truncate(fault.GetRepo).OneIn(2))
	case what == "no directory":
		p.network.Add(fault.Refuse(fault.Directory, 500, "").OneIn(2))
	case what == "all well":
		p.network.End()
	case what == "reactivate":
		if status := p.statuses()[did]; status != simulate.Deleted && !active {
			p.status(did, simulate.Active)
		}
	case !active: // the rest is done by those who can
	default:
		p.acts(did, what)
	}
}

func (p *play) acts(did syntax.DID, what string) {
	p.t.Helper()
	switch what {
	case "commit":
		p.commit(did)
	case "lost commit":
		p.writeFaulty(did, simulate.Dropped, p.create(did))
	case "forged commit":
		p.writeFaulty(did, simulate.ForgedSignature, p.create(did))
	case "rotate":
		require.NoError(p.t, p.RotateKey(did))
	case "deactivate":
		p.status(did, simulate.Deactivated)
	case "suspend":
		p.status(did, simulate.Suspended)
	case "delete account":
		if len(p.dids) > 2 {
			p.status(did, simulate.Deleted)
		}
	case "data loss":
		then := p.LastSeq()
		p.commit(did)
		p.commit(did)
		p.lose(did, then)
	case "#sync":
		require.NoError(p.t, p.Sync(did))
	}
}

// catchUp gives the line a moment to come to the end of the stream. It need not: the
// last event may be one that got lost or that nobody can read.
func (p *play) catchUp() {
	p.t.Helper()
	for until := time.Now().Add(2 * time.Second); p.Cursor() < p.LastSeq() && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
}

// settles waits until the index is what it should be, and tells how it is not if it
// never is.
func (p *play) settles(patience time.Duration) string {
	p.t.Helper()
	want := p.now()
	var d *differences
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(30 * time.Millisecond) {
		if d = p.wrong(want); d.count == 0 {
			return ""
		}
	}
	return d.String()
}
