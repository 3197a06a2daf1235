package fulltext

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

const scanPage = 5000

// Scan gives fn the key and version of every document. An error of fn ends the scan
// and is returned.
func (d *Documents) Scan(ctx context.Context, fn func(key record.Key, version int64) error) error {
	for after := (record.Key{}); ; {
		rows, err := d.pool.Query(ctx, `
			SELECT collection, did, rkey, version FROM search_documents
			WHERE (collection, did, rkey) > ($1, $2, $3) AND NOT deleted ORDER BY collection, did, rkey LIMIT $4`,
			after.Collection, after.DID, after.Rkey, scanPage)
		var page []record.Pending
		if err == nil {
			page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p record.Pending, err error) {
				err = row.Scan(&p.Key.Collection, &p.Key.DID, &p.Key.Rkey, &p.Version)
				return p, err
			})
		}
		if err != nil {
			return fmt.Errorf("scan the documents for search: %w", store.Ended(ctx, err))
		}
		for _, p := range page {
			if err := fn(p.Key, p.Version); err != nil {
				return err
			}
			after = p.Key
		}
		if len(page) < scanPage {
			return nil
		}
	}
}
