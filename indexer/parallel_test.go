package indexer_test

import (
	"context"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// slowIdentity is a directory in which one account is not found until it is released.
type slowIdentity struct {
	*directory.Directory
	slow     syntax.DID
	released chan struct{}

	mu     sync.Mutex
	waits  int                // look-ups of the slow account so far
	others map[syntax.DID]int // look-ups of the others
}

func (s *slowIdentity) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	s.mu.Lock()
	if did == s.slow {
		s.waits++
	} else {
		s.others[did]++
	}
	s.mu.Unlock()
	if did == s.slow {
		select {
		case <-s.released:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Directory.LookupDID(ctx, did)
}

func (s *slowIdentity) seen() (waits, others int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits, len(s.others)
}

// TestSlowIdentityHoldsUpTheCursorAndNothingElse has an account whose identity does not
// come while those of twenty others do. The events of the others, which come after its
// own, are examined meanwhile; neither they nor the cursor are committed before its
// own are. A kill in this state loses nothing, and once the identity is there the
// account's commits, which were examined together, are applied in their order.
func TestSlowIdentityHoldsUpTheCursorAndNothingElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{Seed: 3}, simulate.ServerConfig{})
	slow := r.account("slow")
	before := r.world.LastSeq()
	var others []syntax.DID
	for i := range 4 {
		r.commit(slow, simulate.Create(corpus, rkey(i), named("first")))
	}
	r.commit(slow, simulate.Update(corpus, rkey(1), named("second")), simulate.Delete(corpus, rkey(2)))
	for i := range 20 {
		other := r.account("other" + string(rune('a'+i)))
		r.commit(other, simulate.Create(corpus, rkey(0), named("other")))
		others = append(others, other)
	}

	identities := &slowIdentity{
		Directory: directory.New(directory.Config{PLCURL: r.server.URL(), AllowPrivate: true, PDSHosts: []string{r.server.URL()}}),
		slow:      slow, released: make(chan struct{}), others: map[syntax.DID]int{},
	}
	stop := r.startWith(identities)
	require.Eventually(t, func() bool {
		waits, examined := identities.seen()
		return waits >= 5 && examined == len(others)
	}, patient, tick, "the others' events are examined while the slow account's wait")
	seq, _, err := r.writer.Cursor(t.Context(), r.server.RelayURL())
	require.NoError(t, err)
	require.LessOrEqual(t, seq, before, "the cursor has passed an event that is not applied")
	require.Empty(t, r.indexed(), "events were applied out of order")
	stop()

	identities.waits, identities.others = 0, map[syntax.DID]int{}
	stop = r.startWith(identities)
	defer func() { stop() }()
	require.Eventually(t, func() bool { waits, _ := identities.seen(); return waits >= 5 }, patient, tick, "the stream is read again from before")
	close(identities.released)
	r.caughtUp()
	r.requireTruth()
	require.Equal(t, []string{"r0000", "r0001", "r0003"}, r.rkeys(slow))
	require.Equal(t, store.Synchronized, r.repo(slow).Sync, "its commits were applied in their order")
	require.Empty(t, r.letters())
}

// startWith runs a line that learns keys from identities, until the returned function.
func (r *rig) startWith(identities *slowIdentity) (stop func()) {
	r.t.Helper()
	c, err := catalog.Load()
	require.NoError(r.t, err)
	ix := indexer.New(indexer.Config{
		Firehose: firehose.New(firehose.Config{Hosts: []string{r.server.RelayURL()}, Logger: discard}, nil),
		Verifier: verify.New(identities), Catalog: c, Writer: r.writer, VerifiedHandle: identities.VerifiedHandle,
		Logger: discard, CursorEvery: tick,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ix.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(r.t, <-done)
	}
}
