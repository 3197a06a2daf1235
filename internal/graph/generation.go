package graph

import (
	"context"
	"fmt"
	"regexp"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"

	"github.com/layers-pub/layers-appview/internal/record"
)

// A generation is a whole graph under keys of its own. One node of a space, (:Generation
// {key, served}), says which is in use; reads and writes ask it each time, so all
// clients change over at once.

var generationPattern = regexp.MustCompile(`^[a-z0-9]{1,20}$`)

// spaceOf is what stands before the keys of a generation. The first has no name,
// and none in the nameless space of production has keys as they are. '~' sorts
// after all of those, and '.' is in no space's name, so that nothing overlaps.
func (c *Client) spaceOf(generation string) string {
	switch {
	case generation != "":
		return "~" + c.name + "." + generation + "/"
	case c.name != "":
		return "~" + c.name + "/"
	}
	return ""
}

func (c *Client) generationKey() string { return "~" + c.name }

// in is a client of one generation.
func (c *Client) in(generation string) *Client {
	at := *c
	at.space, at.fixed = c.spaceOf(generation), true
	return &at
}

// Served is a client of the generation that is in use now, and stays with it. It
// shares c's connections: close only c.
func (c *Client) Served(ctx context.Context) (*Client, error) {
	if c.fixed {
		return c, nil
	}
	generation, err := c.served(ctx)
	if err != nil {
		return nil, err
	}
	return c.in(generation), nil
}

func (c *Client) served(ctx context.Context) (string, error) {
	rows, err := c.query(ctx, neo4j.AccessModeRead, "MATCH (g:Generation {key: $key}) RETURN g.served", map[string]any{"key": c.generationKey()})
	if err != nil {
		return "", fmt.Errorf("neo4j: read the generation in use: %w", err)
	}
	if len(rows) == 0 {
		return "", nil
	}
	generation, _ := rows[0].Values[0].(string)
	return generation, nil
}

// Beside is a client of a generation that is not in use, to fill it.
func (c *Client) Beside(generation string) (*Client, error) {
	if !generationPattern.MatchString(generation) {
		return nil, fmt.Errorf("neo4j: generation %q: use 1-20 of a-z 0-9", generation)
	}
	return c.in(generation), nil
}

// Promote makes a generation the one in use.
func (c *Client) Promote(ctx context.Context, generation string) error {
	_, err := c.query(ctx, neo4j.AccessModeWrite, "MERGE (g:Generation {key: $key}) SET g.served = $generation",
		map[string]any{"key": c.generationKey(), "generation": generation})
	if err != nil {
		return fmt.Errorf("neo4j: promote: %w", err)
	}
	return nil
}

// Abandon deletes every generation of the space but the one in use, in transactions
// of bounded size.
func (c *Client) Abandon(ctx context.Context) error {
	served, err := c.served(ctx)
	if err != nil {
		return err
	}
	for {
		prefix, err := c.abandoned(ctx, c.spaceOf(served))
		if err != nil {
			return err
		}
		if prefix == nil {
			break
		}
		if err := c.wipe(ctx, *prefix); err != nil {
			return err
		}
	}
	if served != "" {
		if err := c.wipeFirst(ctx); err != nil {
			return err
		}
	}
	if _, err = c.query(ctx, neo4j.AccessModeWrite, "MATCH (f:Filling {space: $key}) DELETE f", map[string]any{"key": c.generationKey()}); err != nil {
		return fmt.Errorf("neo4j: delete notes of old generations: %w", err)
	}
	return nil
}

// abandoned finds the keys' beginning in some generation with a name that is not in use.
func (c *Client) abandoned(ctx context.Context, served string) (*string, error) {
	prefix := "~" + c.name + "."
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		rows, err := c.query(ctx, neo4j.AccessModeRead, fmt.Sprintf(`MATCH (n:%s) WHERE n.key STARTS WITH $prefix AND NOT n.key STARTS WITH $served
			RETURN n.key LIMIT 1`, kind), map[string]any{"prefix": prefix, "served": orNone(served)})
		if err != nil {
			return nil, fmt.Errorf("neo4j: look for old generations: %w", err)
		}
		if len(rows) > 0 {
			key, _ := rows[0].Values[0].(string)
			for i := len(prefix); i < len(key); i++ {
				if key[i] == '/' {
					found := key[:i+1]
					return &found, nil
				}
			}
			return nil, fmt.Errorf("neo4j: node %q is of no generation", key)
		}
	}
	return nil, nil
}

// orNone is a beginning that no key has for an empty one, which every key has.
func orNone(prefix string) string {
	if prefix == "" {
		return "\x00"
	}
	return prefix
}

// wipeFirst deletes the generation without a name.
func (c *Client) wipeFirst(ctx context.Context) error {
	if c.name != "" {
		return c.wipe(ctx, c.spaceOf(""))
	}
	// Its keys begin as URIs, hashes and JSON do: with all but '~'.
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		for _, statement := range []string{
			"MATCH (n:%s)-[e]->() WHERE n.key < '~' CALL (e) { DELETE e } IN TRANSACTIONS OF 10000 ROWS",
			"MATCH (n:%s) WHERE n.key < '~' CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS",
		} {
			if _, err := c.query(ctx, neo4j.AccessModeWrite, fmt.Sprintf(statement, kind), nil); err != nil {
				return fmt.Errorf("neo4j: delete the first generation's %s nodes: %w", kind, err)
			}
		}
	}
	return nil
}

// Filled is how far a generation has been filled: up to a record, and how many.
func (c *Client) Filled(ctx context.Context) (upTo record.Key, done int64, err error) {
	rows, err := c.query(ctx, neo4j.AccessModeRead, `MATCH (f:Filling {key: $key})
		RETURN f.collection AS collection, f.did AS did, f.rkey AS rkey, f.done AS _version`, map[string]any{"key": c.space})
	if err != nil {
		return upTo, 0, fmt.Errorf("neo4j: read how far the generation is filled: %w", err)
	}
	if len(rows) == 0 {
		return upTo, 0, nil
	}
	row := rows[0].AsMap()
	row["version"] = row["_version"]
	return named(row)
}
