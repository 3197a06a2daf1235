package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// statement is SQL under construction: text that is ours, and values, which
// are parameters.
type statement struct {
	strings.Builder
	args []any
	mode pgx.QueryExecMode // 0 prepares the statement once a connection
}

func (q *statement) write(parts ...string) {
	for _, part := range parts {
		q.WriteString(part)
	}
}

// arg adds a value and returns its placeholder.
func (q *statement) arg(value any) string {
	q.args = append(q.args, value)
	return "$" + strconv.Itoa(len(q.args))
}

func (q *statement) arguments() []any {
	if q.mode == 0 {
		return q.args
	}
	return append([]any{q.mode}, q.args...)
}

// layout is how a collection with a partition is indexed.
type layout struct {
	known  bool
	arrays map[string][]string // array property -> the leads by which its elements are indexed
}

// layoutsKept is how long a collection that had no partition is taken to have none.
const layoutsKept = time.Minute

// layoutOf returns the layout of a collection. For one without, nothing is wrong,
// but lists are slower.
func (r *Reader) layoutOf(ctx context.Context, collection syntax.NSID) layout {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.layouts[collection]; ok || time.Since(r.layoutsRead) < layoutsKept {
		return found
	}
	layouts, err := r.readLayouts(ctx)
	if err != nil {
		return layout{} // what is asked next fails for the same reason, and says so
	}
	r.layouts, r.layoutsRead = layouts, time.Now()
	return r.layouts[collection]
}

func (r *Reader) readLayouts(ctx context.Context) (map[syntax.NSID]layout, error) {
	rows, err := r.pool.Query(ctx, "SELECT collection, lists FROM partitions")
	if err != nil {
		return nil, fmt.Errorf("read the partitions: %w", ended(ctx, err))
	}
	layouts := map[syntax.NSID]layout{}
	var collection syntax.NSID
	var encoded []byte
	_, err = pgx.ForEachRow(rows, []any{&collection, &encoded}, func() error {
		var lists []ListIndex
		if err := json.Unmarshal(encoded, &lists); err != nil {
			return fmt.Errorf("decode the lists of %s: %w", collection, err)
		}
		layouts[collection] = newLayout(lists)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the partitions: %w", ended(ctx, err))
	}
	return layouts, nil
}

func newLayout(lists []ListIndex) layout {
	l := layout{known: true, arrays: map[string][]string{}}
	for _, list := range lists {
		for _, columns := range [][]Column{list.Required, list.Optional} {
			for _, c := range columns {
				if c.Array {
					l.arrays[c.Name] = append(l.arrays[c.Name], list.lead())
				}
			}
		}
	}
	return l
}

// collection is the SQL for a collection: a literal if it has a partition, which the
// planner then goes to directly. The others are parameters, since there is no end
// of them, and every text of a statement is prepared and kept.
func (r *Reader) collection(ctx context.Context, q *statement, nsid syntax.NSID) string {
	if r.layoutOf(ctx, nsid).known {
		return quote(string(nsid))
	}
	return q.arg(nsid)
}
