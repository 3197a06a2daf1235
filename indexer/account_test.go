package indexer_test

import (
	"context"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestAnAccountThatIsBackIsFetchedAsItWasAskedFor puts a fetch off, as one that finds
// the account inactive is.
func TestAnAccountThatIsBackIsFetchedAsItWasAskedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara, bola := r.account("amara"), r.account("bola")
	for _, account := range []syntax.DID{amara, bola} {
		r.commit(account, simulate.Create(corpus, "a", named("a")))
	}
	r.adjust = func(cfg *indexer.Config) {
		cfg.Resync = runner(func(ctx context.Context, _ resync.Line) error { <-ctx.Done(); return ctx.Err() })
	}
	r.start()
	r.caughtUp()
	queue := store.NewResyncs(r.db.Pool)
	_, err := queue.Add(t.Context(), []store.Wanted{{DID: amara, Reason: "asked"}, {DID: bola, Reason: "asked"}})
	require.NoError(t, err)
	for _, account := range []syntax.DID{amara, bola} {
		require.NoError(t, queue.Defer(t.Context(), account, time.Now().Add(24*time.Hour), "", "deactivated"))
	}
	due := func() []store.Due {
		list, err := queue.Due(t.Context(), 10, nil)
		require.NoError(t, err)
		return list
	}
	require.NoError(t, r.world.SetStatus(amara, simulate.Deactivated))
	r.caughtUp()
	require.Empty(t, due())
	require.NoError(t, r.world.SetStatus(amara, simulate.Active))
	r.caughtUp()
	require.Len(t, due(), 1)
	require.Equal(t, amara, due()[0].DID)
	require.Equal(t, store.Synchronized, r.repo(amara).Sync)
}
