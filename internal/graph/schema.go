package graph

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
)

const (
	ensureTries  = 5
	indexSeconds = 300 // to wait for a new index to fill
)

// Ensure makes the constraints and indexes that are missing and waits until they
// are usable. It may run at any time, in several processes at once.
func (c *Client) Ensure(ctx context.Context) error {
	if err := c.checkVersion(ctx); err != nil {
		return err
	}
	for _, statement := range schema() {
		if err := c.ensure(ctx, statement); err != nil {
			return fmt.Errorf("neo4j: %s: %w", statement, err)
		}
	}
	if _, err := c.query(ctx, neo4j.AccessModeRead, "CALL db.awaitIndexes($seconds)", map[string]any{"seconds": indexSeconds}); err != nil {
		return fmt.Errorf("neo4j: wait for indexes: %w", err)
	}
	return nil
}

// Labels and types are given by parameters from this version on.
const oldestMajor, oldestMinor = 5, 26

// checkVersion refuses a server that does not know the statements of a write.
func (c *Client) checkVersion(ctx context.Context) error {
	rows, err := c.query(ctx, neo4j.AccessModeRead, "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]", nil)
	if err != nil {
		return fmt.Errorf("neo4j: read the server's version: %w", err)
	}
	var version string
	if len(rows) > 0 {
		version, _ = rows[0].Values[0].(string)
	}
	if tooOld(version) {
		return fmt.Errorf("neo4j: the server is version %s: use %d.%d or later", version, oldestMajor, oldestMinor)
	}
	return nil
}

// tooOld is false also for what is not the form of a version that is known.
func tooOld(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major < oldestMajor || major == oldestMajor && minor < oldestMinor
}

// ensure runs one statement. Two processes that make the same index at once can
// disturb each other in spite of IF NOT EXISTS.
func (c *Client) ensure(ctx context.Context, statement string) error {
	var err error
	for range ensureTries {
		_, err = c.query(ctx, neo4j.AccessModeWrite, statement, nil)
		var answer *neo4j.Neo4jError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &answer) && (neo4j.IsRetryable(err) || strings.HasSuffix(answer.Code, "AlreadyExists")):
		default:
			return err
		}
	}
	return err
}

func schema() []string {
	var statements []string
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		statements = append(statements, fmt.Sprintf("CREATE CONSTRAINT layers_%s_key IF NOT EXISTS FOR (n:%s) REQUIRE n.key IS UNIQUE",
			strings.ToLower(string(kind)), kind))
	}
	for _, kind := range []string{"Generation", "Filling"} { // see generation.go
		statements = append(statements, fmt.Sprintf("CREATE CONSTRAINT layers_%s_key IF NOT EXISTS FOR (n:%s) REQUIRE n.key IS UNIQUE", strings.ToLower(kind), kind))
	}
	for _, edge := range edgeTypes {
		statements = append(statements, fmt.Sprintf("CREATE INDEX layers_%s_owner IF NOT EXISTS FOR ()-[e:%s]-() ON (e._owner)",
			strings.ToLower(string(edge)), edge))
	}
	return append(statements, "CREATE INDEX layers_knowledge_identifier IF NOT EXISTS FOR (n:Knowledge) ON (n._identifier)")
}

// Wipe deletes every node and edge of the client's space, in all generations: all of
// the graph where that is empty.
func (c *Client) Wipe(ctx context.Context) error {
	prefixes := []string{""}
	if c.name != "" {
		prefixes = []string{c.spaceOf(""), "~" + c.name + "."}
	}
	for _, prefix := range prefixes {
		if err := c.wipe(ctx, prefix); err != nil {
			return err
		}
	}
	for _, statement := range []string{"MATCH (g:Generation {key: $key}) DELETE g", "MATCH (f:Filling {space: $key}) DELETE f"} {
		if _, err := c.query(ctx, neo4j.AccessModeWrite, statement, map[string]any{"key": c.generationKey()}); err != nil {
			return fmt.Errorf("neo4j: wipe generations: %w", err)
		}
	}
	return nil
}

// wipe deletes the nodes whose keys begin with a prefix, and their edges.
func (c *Client) wipe(ctx context.Context, prefix string) error {
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		// Edges first, so that a node with a million of them does not need one large transaction.
		for _, statement := range []string{
			"MATCH (n:%s)-[e]->() WHERE n.key STARTS WITH $prefix CALL (e) { DELETE e } IN TRANSACTIONS OF 10000 ROWS",
			"MATCH (n:%s) WHERE n.key STARTS WITH $prefix CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS",
		} {
			if _, err := c.query(ctx, neo4j.AccessModeWrite, fmt.Sprintf(statement, kind), map[string]any{"prefix": prefix}); err != nil {
				return fmt.Errorf("neo4j: wipe %s nodes: %w", kind, err)
			}
		}
	}
	return nil
}
