package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
)

const (
	collection   = syntax.NSID("pub.layers.expression.expression")
	repositories = 50
	batch        = 5000 // records a transaction
)

// fill makes that many expressions in an empty database, spread evenly over the
// repositories.
func fill(ctx context.Context, address string, records int) error {
	c, err := catalog.Load()
	if err != nil {
		return fmt.Errorf("load the lexicons: %w", err)
	}
	logger := slog.New(slog.DiscardHandler)
	if err := store.Migrate(ctx, address, layout.Partitions(c), logger); err != nil {
		return err
	}
	pool, err := store.Open(ctx, store.Config{URL: address})
	if err != nil {
		return err
	}
	defer pool.Close()
	writer := store.NewWriter(pool, nil, logger)
	release, _, err := writer.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	maker := fixture.New(1)
	for first := 0; first < records; first += batch {
		changes, err := expressions(c, maker, first, min(first+batch, records))
		if err != nil {
			return err
		}
		if err := writer.Apply(ctx, store.Batch{Changes: changes}); err != nil {
			return err
		}
	}
	_, err = pool.Exec(ctx, "VACUUM ANALYZE")
	return err
}

// expressions makes the records numbered from first up to before end.
func expressions(c *catalog.Catalog, maker *fixture.Maker, first, end int) ([]store.Change, error) {
	var changes []store.Change
	for i := first; i < end; i++ {
		key := record.Key{
			DID:        syntax.DID(fmt.Sprintf("did:plc:bench%019d", i%repositories)),
			Collection: collection,
			Rkey:       syntax.RecordKey(syntax.NewTID(1_700_000_000_000_000+int64(i), 0)),
		}
		block, err := atdata.MarshalCBOR(maker.Record(collection))
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", key, err)
		}
		checked, err := c.Check(key, block)
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", key, err)
		}
		id, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
		if err != nil {
			return nil, fmt.Errorf("hash %s: %w", key, err)
		}
		changes = append(changes, store.Change{
			Action: record.Create, Key: key, CID: syntax.CID(id.String()), Rev: syntax.TID(key.Rkey),
			JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter,
		})
	}
	return changes, nil
}
