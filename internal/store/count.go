package store

import (
	"context"
	"fmt"
)

// Counts is how much there is. It is counted row by row: for a person who waits,
// not for every request.
type Counts struct {
	Records int64
	Repos   int64
}

// Count counts the records and repositories, inactive ones included.
func (r *Reader) Count(ctx context.Context) (c Counts, err error) {
	err = r.pool.QueryRow(ctx, "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM repos)").Scan(&c.Records, &c.Repos)
	if err != nil {
		return Counts{}, fmt.Errorf("count records and repositories: %w", err)
	}
	return c, nil
}
