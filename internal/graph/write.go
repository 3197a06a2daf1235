package graph

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"

	"github.com/layers-pub/layers-appview/internal/record"
)

// A transaction takes at most this many records, and edges to delete and to
// make. The server holds its state in memory, some 10 kB for an edge whose ends are new.
const (
	maxRecords = 500
	maxEdges   = 5000
)

// A transaction that another one disturbs is tried again after a random pause,
// up to pauseStep longer each time.
const (
	tries     = 10
	pauseStep = 20 * time.Millisecond
)

// Write brings records up to the given versions. One that is there in a higher
// version stays, which is success; one of the same version is replaced, unless it
// is the same in all else too. The edges that a record stated before give way to
// those that it states now; ends that are not there yet are made as dangling
// nodes. A deletion leaves a dangling node that keeps the version, so that an
// older write cannot bring the record back, and the edges of others to it.
//
// It returns nil or a *[record.WriteError]. Transactions that deadlock are tried again
// at once; backing off from a server that is away is the caller's.
func (c *Client) Write(ctx context.Context, subgraphs []Subgraph) error {
	at, err := c.Served(ctx)
	if err != nil {
		return unwritten(subgraphs, err)
	}
	w := writer{client: at}
	var batch []prepared
	edges := 0
	for _, p := range w.prepare(subgraphs) {
		if len(batch) > 0 && (len(batch) == maxRecords || edges+len(p.Edges) > maxEdges) {
			w.write(ctx, batch)
			batch, edges = batch[:0], 0
		}
		batch = append(batch, p)
		edges += len(p.Edges)
	}
	w.write(ctx, batch)
	if len(w.failures) > 0 {
		return &record.WriteError{Server: "neo4j", Failures: w.failures}
	}
	return nil
}

// unwritten is the failure of all.
func unwritten(subgraphs []Subgraph, err error) error {
	if len(subgraphs) == 0 {
		return nil
	}
	w := writer{}
	for _, s := range subgraphs {
		w.fail(prepared{Subgraph: s}, err)
	}
	return &record.WriteError{Server: "neo4j", Failures: w.failures}
}

// Forget removes what is left of records that were deleted, their versions too: from
// then on an older write would bring one back, and the caller has to see that there
// is none. A node that others' edges name stays for these.
func (c *Client) Forget(ctx context.Context, deleted []Subgraph) error {
	at, err := c.Served(ctx)
	if err != nil {
		return err
	}
	var keys []any
	for _, s := range deleted {
		keys = append(keys, at.key(Record(s.Key)))
	}
	slices.SortFunc(keys, func(a, b any) int { return cmp.Compare(a.(string), b.(string)) })
	err = at.transact(ctx, func(tx transaction) error {
		return tx.run(ctx, "forget records", `UNWIND $rows AS key
			MATCH (n:Record {key: key}) WHERE n._dangling AND NOT (n)--()
			DELETE n`, keys)
	})
	if err != nil {
		return fmt.Errorf("neo4j: %w", err)
	}
	return nil
}

type writer struct {
	client   *Client
	failures []record.Unwritten
}

// prepare checks the subgraphs and orders them by key, so that all writers lock
// nodes in the same order. Of one key given twice the highest version remains,
// of equal versions the last.
func (w *writer) prepare(subgraphs []Subgraph) []prepared {
	out := make([]prepared, 0, len(subgraphs))
	for _, s := range subgraphs {
		p, err := w.client.prepare(s)
		if err != nil {
			w.failures = append(w.failures, record.Unwritten{Key: s.Key, Err: err})
			continue
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b prepared) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.Version, b.Version))
	})
	last := out[:0]
	for i, p := range out {
		if i+1 == len(out) || out[i+1].key != p.key {
			last = append(last, p)
		}
	}
	return last
}

// write stores a batch. Where the server refuses it for what it holds, it is
// halved until the record at fault stands alone.
func (w *writer) write(ctx context.Context, batch []prepared) {
	if len(batch) == 0 {
		return
	}
	var large []prepared
	err := w.client.transact(ctx, func(tx transaction) (err error) {
		large, err = tx.replace(ctx, batch)
		return err
	})
	switch {
	case err == nil:
		for _, p := range large {
			if err := w.client.replaceLarge(ctx, p); err != nil {
				w.fail(p, err)
			}
		}
	case refused(err) && len(batch) > 1:
		middle := len(batch) / 2
		w.write(ctx, batch[:middle])
		w.write(ctx, batch[middle:])
	default:
		for _, p := range batch {
			w.fail(p, err)
		}
	}
}

func (w *writer) fail(p prepared, err error) {
	w.failures = append(w.failures, record.Unwritten{Key: p.Key, Retryable: !refused(err), Err: err})
}

// transact runs fn in a transaction and commits it, again if others disturb it.
func (c *Client) transact(ctx context.Context, fn func(transaction) error) error {
	for try := 1; ; try++ {
		err := c.transactOnce(ctx, fn)
		if err == nil || !contended(err) || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, after %w", ctx.Err(), err)
		case <-time.After(rand.N(time.Duration(try) * pauseStep)):
		}
	}
}

// transactOnce does not use the driver's retrying transactions: those wait a second
// before the first retry, and half a minute for a server that is away.
func (c *Client) transactOnce(ctx context.Context, fn func(transaction) error) (err error) {
	if err := c.writing.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for another write: %w", err)
	}
	defer c.writing.Release(1)
	ctx, call := transactions.Start(ctx)
	defer func() { call.End(err) }()
	session := c.driver.NewSession(ctx, neo4j.SessionConfig{DatabaseName: c.database, AccessMode: neo4j.AccessModeWrite})
	defer session.Close(ctx)
	tx, err := session.BeginTransaction(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer tx.Close(ctx) // rolls back what was not committed
	if err := fn(transaction{tx}); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
