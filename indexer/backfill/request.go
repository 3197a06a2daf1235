package backfill

import (
	"context"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Request has the repositories of some collections searched for anew, or of all that
// are followed if none is named. What is found is fetched also where it is whole. A
// pattern, as app.bsky.*, has all repositories looked at.
func Request(ctx context.Context, at *store.Resyncs, collections ...syntax.NSID) error {
	if err := at.RestartDiscoveries(ctx, collections...); err != nil {
		return err
	}
	known, err := at.Discoveries(ctx)
	if err != nil {
		return err
	}
	searched := map[syntax.NSID]bool{}
	for _, d := range known {
		searched[d.Collection] = true
	}
	for _, collection := range collections {
		if searched[collection] || !strings.HasSuffix(string(collection), "*") {
			continue // one that has no search yet gets it when the indexer starts
		}
		if err := at.SaveDiscovery(ctx, store.Discovery{Collection: collection}); err != nil {
			return err
		}
	}
	return nil
}
