package store

import (
	"context"
	"time"
)

// ListSQL is the statement of a list, for a look at its plan.
func (r *Reader) ListSQL(ctx context.Context, query Query) (sql string, args []any, err error) {
	s, err := r.listStatement(ctx, &query)
	if err != nil {
		return "", nil, err
	}
	return s.String(), s.args, nil
}

// A busy machine's server may take longer than a second to end what was cancelled, and
// no test is about that.
func init() { cancelGrace = time.Minute }

// GrantReader makes a role of any name, and lets it read.
var GrantReader = grantReader

// Trusts tells whether creates are taken not to be there.
func (w *Writer) Trusts() bool { return w.trusts() }
