package graph

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
)

// errOvertaken is retryable: the next try finds what the other writer left.
var errOvertaken = errors.New("another writer took the record over")

// replaceLarge replaces a record whose edges are too many for one transaction.
// It first claims the record's node. Each later transaction goes on only while
// the claim stands, and the last one sets the version and with it ends the
// claim. In between the record is seen with its old properties and a part of its
// edges. A write that breaks off leaves the old version, so it is repeated, and
// the types of all edges that can be there, so they are found.
func (c *Client) replaceLarge(ctx context.Context, p prepared) error {
	claim := rand.Text()
	var before state
	covered := false
	err := c.transact(ctx, func(tx transaction) (err error) {
		before, covered, err = tx.claim(ctx, p, claim)
		return err
	})
	if err != nil || covered {
		return err
	}
	if err := c.deleteLarge(ctx, p, before, claim); err != nil {
		return err
	}
	for edges := range slices.Chunk(p.Edges, maxEdges) {
		part := prepared{Subgraph: p.Subgraph, key: p.key}
		if err := c.setEdges(&part, edges); err != nil {
			return err
		}
		err := c.transactClaimed(ctx, p, claim, func(tx transaction) error {
			if err := tx.mergeTargets(ctx, []prepared{part}); err != nil {
				return err
			}
			return tx.createEdges(ctx, []prepared{part})
		})
		if err != nil {
			return err
		}
	}
	return c.transactClaimed(ctx, p, claim, func(tx transaction) error {
		return tx.setNodes(ctx, []prepared{p}, map[string]state{p.key: before})
	})
}

// claim marks the node, unless it is up to date already. The digest goes, since
// it no longer tells what is stored.
func (tx transaction) claim(ctx context.Context, p prepared, claim string) (before state, covered bool, err error) {
	batch := []prepared{p}
	if err := tx.lock(ctx, batch); err != nil {
		return state{}, false, err
	}
	states, err := tx.states(ctx, batch)
	if err != nil {
		return state{}, false, err
	}
	before = states[p.key]
	if before.covers(p) {
		return before, true, nil
	}
	return before, false, tx.run(ctx, "claim node", `UNWIND $rows AS row
		MATCH (n:Record {key: row.key})
		SET n += row.mark`, []any{map[string]any{"key": p.key, "mark": map[string]any{
		"_claim":  claim,
		"_digest": nil,
		"_starts": union(before.starts, p.starts),
		"_owns":   union(before.owns, p.owns),
		"_edges":  before.edges + len(p.Edges),
	}}})
}

// deleteLarge removes the edges that the record stated before.
func (c *Client) deleteLarge(ctx context.Context, p prepared, before state, claim string) error {
	var patterns []string
	for _, name := range before.starts {
		patterns = append(patterns, fmt.Sprintf("(:Record {key: $key})-[e:%s]->() WHERE e._owner IS NULL", name))
	}
	for _, name := range before.owns {
		patterns = append(patterns, fmt.Sprintf("()-[e:%s {_owner: $key}]->()", name))
	}
	for _, pattern := range patterns {
		for deleted := int64(maxEdges); deleted == maxEdges; {
			err := c.transactClaimed(ctx, p, claim, func(tx transaction) (err error) {
				deleted, err = tx.count(ctx, "MATCH "+pattern+" WITH e LIMIT $limit DELETE e RETURN count(*)",
					map[string]any{"key": p.key, "limit": maxEdges})
				return err
			})
			if err != nil {
				return fmt.Errorf("delete edges: %w", err)
			}
		}
	}
	return nil
}

// transactClaimed is transact for as long as the claim stands.
func (c *Client) transactClaimed(ctx context.Context, p prepared, claim string, fn func(transaction) error) error {
	return c.transact(ctx, func(tx transaction) error {
		batch := []prepared{p}
		if err := tx.lock(ctx, batch); err != nil {
			return err
		}
		states, err := tx.states(ctx, batch)
		if err != nil {
			return err
		}
		if states[p.key].claim != claim {
			return errOvertaken
		}
		return fn(tx)
	})
}

// count runs a statement that returns one number.
func (tx transaction) count(ctx context.Context, cypher string, params map[string]any) (int64, error) {
	result, err := tx.Run(ctx, cypher, params)
	if err != nil {
		return 0, err
	}
	row, err := result.Single(ctx)
	if err != nil {
		return 0, err
	}
	n, _, err := neo4j.GetRecordValue[int64](row, "count(*)")
	return n, err
}

// union is the sorted values of both.
func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}
