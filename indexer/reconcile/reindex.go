package reconcile

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Reindex has all records of collections projected again, and returns when they
// have been. Where Elasticsearch keeps an older index of a collection in use until
// the new one is filled, it is told so then.
func Reindex(ctx context.Context, stores Stores, target record.Target, collections []syntax.NSID) error {
	if err := stores.Outbox.EnqueueCollections(ctx, target, collections); err != nil {
		return err
	}
	if err := CaughtUp(ctx, stores.Outbox, target); err != nil {
		return err
	}
	if target != record.Search {
		return nil
	}
	for _, nsid := range collections {
		if err := stores.Search.Rebuilt(ctx, nsid); err != nil {
			return fmt.Errorf("putting the index of %s to use: %w", nsid, err)
		}
	}
	return nil
}
