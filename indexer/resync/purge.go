package resync

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// purge removes every record of a deleted account, whatever the collection, and then
// what else there is of it.
func (r *Resync) purge(ctx context.Context, line Line, did syntax.DID) (deleted int, err error) {
	collections, err := r.cfg.Contents.RepoCollections(ctx, did)
	if err != nil {
		return 0, fmt.Errorf("reading what the index has of %s: %w", did, err)
	}
	for _, collection := range collections {
		n, err := r.empty(ctx, line, did, collection)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	records.WithLabelValues("deleted").Add(float64(deleted))
	if err := line.Purge(ctx, did); err != nil {
		return deleted, fmt.Errorf("purging %s: %w", did, err)
	}
	return deleted, nil
}

func (r *Resync) empty(ctx context.Context, line Line, did syntax.DID, collection syntax.NSID) (deleted int, err error) {
	after := syntax.RecordKey("")
	for {
		page, err := r.cfg.Contents.RepoRecords(ctx, did, collection, after, chunkChanges)
		if err != nil {
			return deleted, fmt.Errorf("reading what the index has of %s: %w", did, err)
		}
		if len(page) == 0 {
			return deleted, nil
		}
		changes := make([]store.Change, len(page))
		for i, stored := range page {
			changes[i] = store.Change{
				Action: record.Delete, Resync: true, Key: record.Key{DID: did, Collection: collection, Rkey: stored.Rkey},
			}
		}
		if err := line.Write(ctx, changes, nil); err != nil {
			return deleted, fmt.Errorf("removing records of a deleted account: %w", err)
		}
		deleted, after = deleted+len(page), page[len(page)-1].Rkey
	}
}
