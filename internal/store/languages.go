package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// InLanguages returns those of some records that are there and name any of the
// languages; a tag also stands for its narrower ones. Names that are no AT-URIs of
// records in a repository given by DID are passed over.
func (r *Reader) InLanguages(ctx context.Context, uris, tags []string) (found []string, err error) {
	var keys []record.Key
	for _, uri := range uris {
		if key, err := record.ParseKey(syntax.ATURI(uri)); err == nil {
			keys = append(keys, key)
		}
	}
	lower := make([]string, len(tags))
	for i, tag := range tags {
		lower[i] = strings.ToLower(tag)
	}
	for collection, n := range byCollection(keys) {
		q := &statement{mode: planned}
		q.write("SELECT r.collection, r.did, r.rkey FROM unnest(", q.arg(n.dids), "::text[], ", q.arg(n.rkeys), "::text[]) AS k (did, rkey)",
			" JOIN records r ON r.did = k.did AND r.rkey = k.rkey WHERE r.collection = ", r.collection(ctx, q, collection),
			" AND EXISTS (SELECT FROM jsonb_array_elements_text(CASE jsonb_typeof(r.filter -> 'languages') WHEN 'array' THEN r.filter -> 'languages' END) l, unnest(",
			q.arg(lower), "::text[]) t WHERE lower(l) = t OR starts_with(lower(l), t || '-')) AND ", ofActive)
		some, err := collect(ctx, r.pool, func(row pgx.CollectableRow) (string, error) {
			key, err := scanKey(row)
			return key.String(), err
		}, q.String(), q.arguments()...)
		if err != nil {
			return nil, fmt.Errorf("read which of %d records of %s are in %s: %w", len(n.dids), collection, strings.Join(tags, ", "), err)
		}
		found = append(found, some...)
	}
	return found, nil
}
