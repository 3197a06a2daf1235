package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"

	"github.com/layers-pub/layers-appview/bench/scratch"
)

// unwindRows is how many rows a statement takes, as many as the indexer's.
const unwindRows = 500

// subgraphRate writes nodes and edges of a measurement once more, under a label of
// their own with a constraint like the original's, without versions or guards.
func subgraphRate(ctx context.Context, s *scratch.Stores) (rate float64, err error) {
	auth := neo4j.NoAuth()
	if s.Neo4jUser != "" {
		auth = neo4j.BasicAuth(s.Neo4jUser, s.Neo4jPassword, "")
	}
	driver, err := neo4j.NewDriverWithContext(s.Neo4j, auth)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, driver.Close(context.WithoutCancel(ctx))) }()
	g := bareGraph{driver: driver, label: "Bare" + s.DatabaseName()}
	nodes, edges, err := g.read(ctx, "~"+s.Name+"/")
	if err != nil {
		return 0, err
	}
	if err := g.run(ctx, "CREATE CONSTRAINT "+g.label+" FOR (n:"+g.label+") REQUIRE n.key IS UNIQUE", nil); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.drop(context.WithoutCancel(ctx))) }()
	began := time.Now()
	for part := range slices.Chunk(nodes, unwindRows) {
		if err := g.run(ctx, "UNWIND $rows AS row MERGE (n:"+g.label+" {key: row.key}) SET n += row.properties", part); err != nil {
			return 0, err
		}
	}
	for part := range slices.Chunk(edges, unwindRows) {
		if err := g.run(ctx, fmt.Sprintf(`UNWIND $rows AS row MERGE (a:%[1]s {key: row.start}) MERGE (b:%[1]s {key: row.end})
			CREATE (a)-[e:REFERENCES]->(b) SET e += row.properties`, g.label), part); err != nil {
			return 0, err
		}
	}
	return float64(len(nodes)) / time.Since(began).Seconds(), nil
}

type bareGraph struct {
	driver neo4j.DriverWithContext
	label  string
}

// read takes up to sample records and their edges out of the measurement's space.
func (g bareGraph) read(ctx context.Context, space string) (nodes, edges []any, err error) {
	nodes, err = g.collect(ctx, `MATCH (n:Record) WHERE n.key STARTS WITH $space AND n._version IS NOT NULL
		RETURN {key: n.key, properties: properties(n)} AS row ORDER BY n.key LIMIT $limit`, space)
	if err != nil {
		return nil, nil, err
	}
	edges, err = g.collect(ctx, `MATCH (n:Record) WHERE n.key STARTS WITH $space AND n._version IS NOT NULL
		WITH n ORDER BY n.key LIMIT $limit MATCH (n)-[e]->(to)
		RETURN {start: n.key, end: to.key, properties: properties(e)} AS row`, space)
	return nodes, edges, err
}

func (g bareGraph) collect(ctx context.Context, cypher, space string) ([]any, error) {
	session := g.driver.NewSession(ctx, neo4j.SessionConfig{})
	defer session.Close(ctx)
	found, err := session.Run(ctx, cypher, map[string]any{"space": space, "limit": sample})
	if err != nil {
		return nil, err
	}
	var rows []any
	for found.Next(ctx) {
		rows = append(rows, found.Record().Values[0])
	}
	return rows, found.Err()
}

func (g bareGraph) run(ctx context.Context, cypher string, rows []any) error {
	session := g.driver.NewSession(ctx, neo4j.SessionConfig{})
	defer session.Close(ctx)
	found, err := session.Run(ctx, cypher, map[string]any{"rows": rows})
	if err != nil {
		return err
	}
	_, err = found.Consume(ctx)
	return err
}

func (g bareGraph) drop(ctx context.Context) error {
	return errors.Join(
		g.run(ctx, "MATCH (n:"+g.label+")-[e]->() CALL (e) { DELETE e } IN TRANSACTIONS OF 10000 ROWS", nil),
		g.run(ctx, "MATCH (n:"+g.label+") CALL (n) { DELETE n } IN TRANSACTIONS OF 10000 ROWS", nil),
		g.run(ctx, "DROP CONSTRAINT "+g.label+" IF EXISTS", nil),
	)
}
