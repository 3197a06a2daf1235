package graph

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j/dbtype"

	"github.com/layers-pub/layers-appview/internal/record"
)

const scanPage = 5000

// Scan gives fn the key and version of every record that is there, so neither
// dangling nor deleted ones, in order of their nodes' keys. A record written
// during the scan may or may not be seen. An error of fn ends the scan and is returned.
func (c *Client) Scan(ctx context.Context, fn func(key record.Key, version int64) error) error {
	c, err := c.Served(ctx)
	if err != nil {
		return err
	}
	after, end := c.space, c.space+"~" // which no key reaches
	for {
		rows, err := c.query(ctx, neo4j.AccessModeRead, `MATCH (n:Record)
			WHERE n.key > $after AND n.key < $end AND n._dangling IS NULL
			RETURN n.key AS at, n.did AS did, n.collection AS collection, n.rkey AS rkey, n._version AS version
			ORDER BY n.key LIMIT $limit`, map[string]any{"after": after, "end": end, "limit": scanPage})
		if err != nil {
			return fmt.Errorf("neo4j: scan: %w", err)
		}
		for _, row := range rows {
			key, version, err := name(row)
			if err != nil {
				return fmt.Errorf("neo4j: scan: %w", err)
			}
			if err := fn(key, version); err != nil {
				return err
			}
		}
		if len(rows) < scanPage {
			return nil
		}
		after = rows[len(rows)-1].Values[0].(string)
	}
}

// name reads the key and version from a row of Scan.
func name(row *neo4j.Record) (record.Key, int64, error) { return named(row.AsMap()) }

func named(values map[string]any) (record.Key, int64, error) {
	did, okDID := values["did"].(string)
	collection, okCollection := values["collection"].(string)
	rkey, okRkey := values["rkey"].(string)
	version, okVersion := values["version"].(int64)
	if !okDID || !okCollection || !okRkey || !okVersion {
		return record.Key{}, 0, fmt.Errorf("node %v has no name and version of a record", values["at"])
	}
	return record.Key{DID: syntax.DID(did), Collection: syntax.NSID(collection), Rkey: syntax.RecordKey(rkey)}, version, nil
}

// Stored is a record as the graph has it.
type Stored struct {
	Version    int64 // 0 for a record that has only been referred to
	Dangling   bool  // referred to but not there, or deleted
	Labels     []string
	Properties map[string]any // besides the graph's own
	Edges      []StoredEdge   // that the record states, in no particular order
}

// StoredEdge is an edge as the graph has it.
type StoredEdge struct {
	Edge
	Dangling bool // whether either end is a record that is not there
}

// ErrNotFound is returned by [Client.Get] for a record that nothing refers to
// and that never was there.
var ErrNotFound = errors.New("neo4j: no such node")

// Get reads back what [Client.Write] stored of a record, for audits and tests.
func (c *Client) Get(ctx context.Context, key record.Key) (Stored, error) {
	c, err := c.Served(ctx)
	if err != nil {
		return Stored{}, err
	}
	nodeKey := c.key(Record(key))
	rows, err := c.query(ctx, neo4j.AccessModeRead, "MATCH (n:Record {key: $key}) RETURN n", map[string]any{"key": nodeKey})
	if err != nil {
		return Stored{}, fmt.Errorf("neo4j: get %s: %w", key, err)
	}
	if len(rows) == 0 {
		return Stored{}, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	node := rows[0].Values[0].(dbtype.Node)
	stored := Stored{Dangling: node.Props["_dangling"] == true, Properties: visible(node.Props, nodeNames...)}
	stored.Version, _ = node.Props["_version"].(int64)
	for _, label := range node.Labels {
		if label != string(RecordNode) {
			stored.Labels = append(stored.Labels, label)
		}
	}
	if stored.Edges, err = c.edges(ctx, nodeKey, stringList(node.Props["_owns"])); err != nil {
		return Stored{}, fmt.Errorf("neo4j: get edges of %s: %w", key, err)
	}
	return stored, nil
}

// edges reads the edges that a record states, wherever they start.
func (c *Client) edges(ctx context.Context, owner string, owns []string) ([]StoredEdge, error) {
	patterns := []string{"(from:Record {key: $owner})-[e]->(to) WHERE e._owner IS NULL"}
	for _, edge := range edgeTypes {
		if slices.Contains(owns, string(edge)) {
			patterns = append(patterns, fmt.Sprintf("(from)-[e:%s {_owner: $owner}]->(to)", edge))
		}
	}
	var edges []StoredEdge
	for _, pattern := range patterns {
		rows, err := c.query(ctx, neo4j.AccessModeRead, "MATCH "+pattern+" RETURN from, e, to", map[string]any{"owner": owner})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			from, e, to := row.Values[0].(dbtype.Node), row.Values[1].(dbtype.Relationship), row.Values[2].(dbtype.Node)
			edges = append(edges, StoredEdge{
				Edge:     Edge{Type: EdgeType(e.Type), From: nodeOf(from), To: nodeOf(to), Properties: visible(e.Props)},
				Dangling: from.Props["_dangling"] == true || to.Props["_dangling"] == true,
			})
		}
	}
	return edges, nil
}

func nodeOf(stored dbtype.Node) Node {
	text := func(name string) string {
		s, _ := stored.Props[name].(string)
		return s
	}
	for _, label := range stored.Labels {
		if isKind(label) {
			return Node{Kind: NodeKind(label), URI: text("uri"), Source: text("source"), Identifier: text("identifier")}
		}
	}
	return Node{}
}

// visible is the properties that came from the record.
func visible(props map[string]any, reserved ...string) map[string]any {
	out := maps.Clone(props)
	maps.DeleteFunc(out, func(name string, _ any) bool { return isOwn(name, reserved) })
	return out
}
