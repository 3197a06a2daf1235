package graph

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j/dbtype"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// truth knows what the graph itself does not; see [store.Reader]: which accounts are
// not to be seen, of which the graph learns only when their records are projected again,
// and whether it has yet to be filled.
type truth interface {
	Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error)
	Filling(ctx context.Context, target record.Target) (bool, error)
}

// Traversals is the graph as questions are answered from it.
type Traversals struct {
	client *Client
	truth  truth
}

// NewTraversals makes a [traversal.Source] of the generation that is in use when each
// question is asked.
func NewTraversals(client *Client, truth truth) *Traversals {
	return &Traversals{client: client, truth: truth}
}

const serverGrace = 100 * time.Millisecond // for which the server goes on after its client has given up

// Begin opens a transaction for one question, which the server ends at the context's deadline.
func (t *Traversals) Begin(ctx context.Context) (traversal.View, error) {
	at, err := t.client.Served(ctx)
	if err != nil {
		return nil, explain(err)
	}
	session := at.driver.NewSession(ctx, neo4j.SessionConfig{DatabaseName: at.database, AccessMode: neo4j.AccessModeRead})
	var limits []func(*neo4j.TransactionConfig)
	if deadline, ok := ctx.Deadline(); ok {
		limits = append(limits, neo4j.WithTxTimeout(max(time.Until(deadline), 0)+serverGrace))
	}
	tx, err := session.BeginTransaction(ctx, limits...)
	if err != nil {
		_ = session.Close(context.WithoutCancel(ctx)) // of what has failed already
		return nil, fmt.Errorf("neo4j: begin to read: %w", explain(err))
	}
	return &view{from: t, at: at, session: session, tx: tx}, nil
}

type view struct {
	from    *Traversals
	at      *Client // of the generation that is read
	session neo4j.SessionWithContext
	tx      neo4j.ExplicitTransaction
}

const endTime = 2 * time.Second // to close a transaction whose context may be over

// End closes the transaction. What was read is stale if another generation is in use
// by now: the one that was read may have been removed meanwhile.
func (v *view) End(ctx context.Context) (stale bool, err error) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_ = v.tx.Close(closing) // nothing was written
	_ = v.session.Close(closing)
	if ctx.Err() != nil {
		return false, nil // nobody waits for the answer
	}
	now, err := v.from.client.Served(ctx)
	if err != nil {
		return false, explain(err)
	}
	return now.space != v.at.space, nil
}

// Filling tells whether what is written to the graph anew is on its way still.
func (v *view) Filling(ctx context.Context) (bool, error) {
	return v.from.truth.Filling(ctx, record.Graph)
}

// Inactive asks for the accounts as they are now.
func (v *view) Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error) {
	return v.from.truth.Inactive(ctx, dids)
}

// hop is what is returned of an edge e between n, from where it is followed, and m. A
// node's other properties would be sent again with each of its edges.
const hop = ` RETURN n.key AS near, CASE WHEN m:Record THEN 'Record' WHEN m:Knowledge THEN 'Knowledge' ELSE 'External' END AS kind,
	m.uri AS uri, m.source AS source, m.identifier AS identifier, m._dangling AS dangling,
	type(e) AS type, properties(e) AS properties, id(e) AS place, startNode(e) = n AS out`

// Incident reads a node's edges in one direction, in order. The server keeps as many
// of them as are asked for, however many there are.
func (v *view) Incident(ctx context.Context, q traversal.Incident) ([]traversal.Step, error) {
	types := q.Types
	params := map[string]any{"key": v.key(q.Node), "limit": q.Limit}
	where := v.far(q.Collection, params)
	if q.After != nil {
		types = nil
		for _, t := range q.Types {
			if t >= q.After.Type {
				types = append(types, t)
			}
		}
		params["type"], params["far"], params["place"] = string(q.After.Type), v.key(traversal.Named(q.After.Far)), q.After.Place
		where = append(where, "(type(e) > $type OR m.key > $far OR m.key = $far AND id(e) > $place)")
	}
	if q.In && !q.Loops {
		where = append(where, "m <> n")
	}
	if len(types) == 0 {
		return nil, nil
	}
	direction := traversal.Out
	if q.In {
		direction = traversal.In
	}
	return v.steps(ctx, []traversal.ID{q.Node}, fmt.Sprintf("MATCH (n:%s {key: $key}) MATCH %s%s WITH n, e, m ORDER BY type(e), m.key, id(e) LIMIT $limit",
		kindOf(q.Node), pattern(direction, types), conditions(where)), params)
}

// Expand reads edges of several nodes. Each kind of node has an index of its own.
func (v *view) Expand(ctx context.Context, nodes []traversal.ID, f traversal.Filter, perNode, limit int) (steps []traversal.Step, err error) {
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		var keys []string
		var of []traversal.ID
		for _, id := range nodes {
			if kindOf(id) == kind {
				keys, of = append(keys, v.key(id)), append(of, id)
			}
		}
		if len(keys) == 0 || len(steps) == limit {
			continue
		}
		params := map[string]any{"keys": keys, "perNode": perNode, "limit": limit - len(steps)}
		found, err := v.steps(ctx, of, fmt.Sprintf(`UNWIND $keys AS key MATCH (n:%s {key: key})
			CALL (n) { MATCH %s%s RETURN e, m LIMIT $perNode } WITH n, e, m LIMIT $limit`,
			kind, pattern(f.Direction, f.Types), conditions(v.far(f.Collection, params))), params)
		if err != nil {
			return nil, err
		}
		steps = append(steps, found...)
	}
	return steps, nil
}

// pattern matches edges from n to m. The types are the graph's own: see [edgeTypes].
func pattern(direction traversal.Direction, types []traversal.EdgeType) string {
	var names []string
	for _, t := range edgeTypes {
		for _, wanted := range types {
			if t == wanted {
				names = append(names, string(t))
			}
		}
	}
	edge := "-[e:" + strings.Join(names, "|") + "]-"
	switch direction {
	case traversal.Out:
		return "(n)" + edge + ">(m)"
	case traversal.In:
		return "(n)<" + edge + "(m)"
	}
	return "(n)" + edge + "(m)"
}

// far are the conditions that a collection makes.
func (v *view) far(collection syntax.NSID, params map[string]any) []string {
	if collection == "" {
		return nil
	}
	params["collection"] = string(collection)
	return []string{"m:Record", "split(m.uri, '/')[3] = $collection"}
}

func conditions(where []string) string {
	if len(where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(where, " AND ")
}

// steps runs a statement that finds n, one of the nodes, and e and m.
func (v *view) steps(ctx context.Context, nodes []traversal.ID, find string, params map[string]any) ([]traversal.Step, error) {
	rows, err := v.run(ctx, find+hop, params)
	if err != nil {
		return nil, fmt.Errorf("neo4j: follow edges: %w", err)
	}
	byKey := make(map[string]traversal.ID, len(nodes))
	for _, id := range nodes {
		byKey[v.key(id)] = id
	}
	steps := make([]traversal.Step, 0, len(rows))
	owners := map[string][]int{} // by key, where it does not say the owner's URI
	for _, row := range rows {
		values := row.AsMap()
		near, _ := values["near"].(string)
		s, owner := v.step(byKey[near], values)
		if s.Stated == "" {
			owners[owner] = append(owners[owner], len(steps))
		}
		steps = append(steps, s)
	}
	return steps, v.nameOwners(ctx, steps, owners)
}

func (v *view) step(near traversal.ID, row map[string]any) (s traversal.Step, owner string) {
	text := func(name string) string {
		value, _ := row[name].(string)
		return value
	}
	far := Node{Kind: NodeKind(text("kind")), URI: text("uri"), Source: text("source"), Identifier: text("identifier")}.ID()
	s.Via, s.Dangling = near, row["dangling"] == true
	s.From, s.To = near, far
	if row["out"] != true {
		s.From, s.To = far, near
	}
	s.Type = EdgeType(text("type"))
	s.Place, _ = row["place"].(int64)
	props, _ := row["properties"].(map[string]any)
	owner, stated := props["_owner"].(string)
	s.Properties = visible(props)
	switch {
	case !stated:
		s.Stated = s.From.URI
	case !strings.HasPrefix(owner, v.at.space+hashed):
		s.Stated = strings.TrimPrefix(owner, v.at.space)
	}
	return s, owner
}

// nameOwners looks up the records that state edges, where their keys are hashes.
func (v *view) nameOwners(ctx context.Context, steps []traversal.Step, owners map[string][]int) error {
	if len(owners) == 0 {
		return nil
	}
	rows, err := v.run(ctx, "UNWIND $keys AS key MATCH (n:Record {key: key}) RETURN key, n.uri AS uri", map[string]any{"keys": sortedKeys(owners)})
	if err != nil {
		return fmt.Errorf("neo4j: read who states edges: %w", err)
	}
	for _, row := range rows {
		values := row.AsMap()
		key, _ := values["key"].(string)
		for _, i := range owners[key] {
			steps[i].Stated, _ = values["uri"].(string)
		}
	}
	return nil
}

// Knowledge finds the entries with an identifier.
func (v *view) Knowledge(ctx context.Context, identifier string, limit int) ([]traversal.ID, error) {
	rows, err := v.run(ctx, `MATCH (n:Knowledge {_identifier: $identifier}) WHERE n.key STARTS WITH $space AND (n.key < '~' OR $space <> '')
		AND EXISTS { (n)<-[:KNOWLEDGE_REF]-() } RETURN n ORDER BY n.key LIMIT $limit`,
		map[string]any{"identifier": indexable(identifier), "space": v.at.space, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("neo4j: look for %q in the knowledge bases: %w", identifier, err)
	}
	ids := make([]traversal.ID, len(rows))
	for i, row := range rows {
		ids[i] = identify(row.Values[0].(dbtype.Node))
	}
	return ids, nil
}

// Nodes reads what is known of records.
func (v *view) Nodes(ctx context.Context, ids []traversal.ID) (map[traversal.ID]traversal.Node, error) {
	var keys []string
	for _, id := range ids {
		if id.Kind == traversal.Record {
			keys = append(keys, v.key(id))
		}
	}
	nodes := make(map[traversal.ID]traversal.Node, len(keys))
	if len(keys) == 0 {
		return nodes, nil
	}
	rows, err := v.run(ctx, "UNWIND $keys AS key MATCH (n:Record {key: key}) WHERE n._dangling IS NULL RETURN n", map[string]any{"keys": keys})
	if err != nil {
		return nil, fmt.Errorf("neo4j: read %d nodes: %w", len(keys), err)
	}
	for _, row := range rows {
		n := row.Values[0].(dbtype.Node)
		id := identify(n)
		nodes[id] = traversal.Node{ID: id, Label: traversal.Label(n.Props)}
	}
	return nodes, nil
}

// run runs a statement, whose time is the transaction's.
func (v *view) run(ctx context.Context, cypher string, params map[string]any) (rows []*neo4j.Record, err error) {
	ctx, call := traverses.Start(ctx)
	defer func() { call.End(err) }()
	call.Text(cypher)
	result, err := v.tx.Run(ctx, cypher, params)
	if err == nil {
		rows, err = result.Collect(ctx)
	}
	if err != nil {
		return nil, explain(err)
	}
	return rows, nil
}

// explain tells a time that is over and a server that is away from other errors.
func explain(err error) error {
	switch {
	case timedOut(err):
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case away(err):
		return fmt.Errorf("%w: %w", traversal.ErrUnavailable, err)
	}
	return err
}

func (v *view) key(id traversal.ID) string {
	return v.at.key(Node{Kind: kindOf(id), URI: id.URI, Source: id.Source, Identifier: id.Identifier})
}

func kindOf(id traversal.ID) NodeKind {
	switch id.Kind {
	case traversal.Knowledge:
		return KnowledgeNode
	case traversal.External:
		return ExternalNode
	}
	return RecordNode
}

// ID is the node's name in questions and answers.
func (n Node) ID() traversal.ID {
	switch n.Kind {
	case KnowledgeNode:
		return traversal.OfKnowledge(n.Source, n.Identifier)
	case ExternalNode:
		return traversal.ID{Kind: traversal.External, URI: n.URI}
	}
	return traversal.ID{Kind: traversal.Record, URI: n.URI}
}

func identify(stored dbtype.Node) traversal.ID { return nodeOf(stored).ID() }
