package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// streamCommits is how long the stream is that faults are put into.
const streamCommits = 20_000

// recorded is the stream, made once: a file of frames, and the world as its oracle.
var recorded = sync.OnceValues(func() (*simulate.World, error) {
	w, err := simulate.NewWorld(simulate.Config{Seed: 11, Dir: filepath.Join(rig.Dir(), "stream")})
	if err != nil {
		return nil, err
	}
	g, err := simulate.NewGenerator(w, simulate.Script{Authors: 8, Edits: 20, Foreign: 15, Live: true, Records: streamCommits})
	if err != nil {
		return nil, err
	}
	defer g.Stop()
	for i := range streamCommits {
		if _, err := g.Step(); err != nil {
			return nil, fmt.Errorf("commit %d: %w", i, err)
		}
	}
	return w, nil
})

// stream serves the recorded stream as far as its gate is open.
type stream struct {
	*simulate.World
	*gate
	server *simulate.Server
}

func newStream(t *testing.T) *stream {
	t.Helper()
	w, err := recorded()
	require.NoError(t, err)
	g := &gate{moved: make(chan struct{})}
	s := simulate.NewServer(w, simulate.ServerConfig{Alter: func(f simulate.Frame) [][]byte {
		g.pass(f.Seq)
		return [][]byte{f.Data}
	}})
	require.NoError(t, s.Start("127.0.0.1:0"))
	t.Cleanup(func() {
		g.open(w.LastSeq()) // so that no subscription waits at it
		require.NoError(t, s.Stop())
	})
	return &stream{World: w, gate: g, server: s}
}

func (s *stream) upstream() rig.Upstream {
	return rig.Upstream{Relay: s.server.RelayURL(), PLC: s.server.URL()}
}

// gate holds back the events after a certain one.
type gate struct {
	mu     sync.Mutex
	until  int64
	moved  chan struct{} // closed, and replaced, when it opens further
	sent   int64         // the latest event that has passed
	wanted int64         // an event that somebody waits for
	passed chan struct{} // closed when that passes
}

// open lets events up to seq pass.
func (g *gate) open(seq int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = max(g.until, seq)
	close(g.moved)
	g.moved = make(chan struct{})
}

func (g *gate) pass(seq int64) {
	for {
		g.mu.Lock()
		until, moved := g.until, g.moved
		if seq <= until {
			g.sent = max(g.sent, seq)
			if g.passed != nil && seq >= g.wanted {
				close(g.passed)
				g.passed = nil
			}
		}
		g.mu.Unlock()
		if seq <= until {
			return
		}
		<-moved
	}
}

// sending returns what is closed once an event passes, now or again.
func (g *gate) sending(seq int64) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	passed := make(chan struct{})
	g.wanted, g.passed = seq, passed
	return passed
}

// latest is the latest event that has passed.
func (g *gate) latest() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent
}

// seeded makes a test's dice. Their seed is printed, and LAYERS_E2E_SEED repeats it.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("LAYERS_E2E_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("LAYERS_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
