package store

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// Joined returns what records of a collection refer to at one path, where they refer
// to a target at another: of memberships, the expressions in a corpus. Up to limit
// distinct ones, sorted.
func (r *Reader) Joined(ctx context.Context, collection syntax.NSID, path string, target syntax.ATURI, other string, limit int) ([]string, error) {
	found, err := collect(ctx, r.pool, pgx.RowTo[string], `
		SELECT DISTINCT o.target FROM refs r JOIN records s ON s.collection = r.collection AND s.did = r.did AND s.rkey = r.rkey `+referring("s", "o")+`
		WHERE r.collection = $1 AND s.collection = $1 AND r.path = $2 AND r.target_hash = $6 AND r.target = $3
			AND o.path = $4 AND `+ofActive+` ORDER BY o.target LIMIT $5`, collection, path, target, other, limit, TargetHash(string(target)))
	if err != nil {
		return nil, fmt.Errorf("read what records of %s that refer to %s also refer to: %w", collection, target, err)
	}
	return found, nil
}
