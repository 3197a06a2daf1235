package graph

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Filler fills a generation that nobody else writes, see [Client.Beside]: without
// asking for each record what is there, and many of them in a transaction. Each
// transaction also notes how far it has come, so that filling goes on exactly there
// after a kill. It is for one goroutine, apart from Prepare.
//
// It remembers the server's own identifiers of nodes, by which an edge's ends are
// found without an index. They are good for as long as nothing of the generation is
// deleted, which nobody does while it is filled.
type Filler struct {
	client *Client
	known  memory
	fresh  map[string]int64 // nodes of the transaction under way
	// whole tells that known has every node of the generation: what it does not have can
	// be created without looking for it.
	whole bool
}

// Bounds of a transaction. The server copies what one of them holds each time it
// collects garbage: with four times as many it took longer by a third.
const (
	FillRecords = 250
	fillEdges   = 2000
)

// NewFiller makes a filler for the client's generation. empty tells that there is
// nothing in it yet; where that is wrong, filling begins more slowly.
func (c *Client) NewFiller(empty bool) *Filler {
	return &Filler{client: c, whole: empty}
}

// Prepared are subgraphs in the form that the graph takes.
type Prepared struct {
	batch, large []prepared
	failures     []record.Unwritten
}

// Prepare does what needs no server, for records of one collection. It may be called by
// several goroutines.
func (f *Filler) Prepare(subgraphs []Subgraph) Prepared {
	w := writer{client: f.client}
	out := Prepared{}
	for _, p := range w.prepare(subgraphs) {
		if len(p.Edges) > maxEdges {
			out.large = append(out.large, p)
		} else {
			out.batch = append(out.batch, p)
		}
	}
	slices.SortFunc(out.batch, func(a, b prepared) int { // as they are scanned
		return cmp.Or(cmp.Compare(a.Key.DID, b.Key.DID), cmp.Compare(a.Key.Rkey, b.Key.Rkey))
	})
	out.failures = w.failures
	return out
}

// Fill writes prepared subgraphs of records that are not there yet, and with the last
// of them that the generation is filled up to a record, and has so many. It returns
// nil or a *[record.WriteError] where records were refused for what they hold; any other
// error means that the same is to be tried again from where [Client.Filled] says.
func (f *Filler) Fill(ctx context.Context, p Prepared, upTo record.Key, done int64) error {
	w := writer{client: f.client, failures: p.failures}
	for _, large := range p.large {
		f.whole = false
		if err := f.client.replaceLarge(ctx, large); err != nil {
			if !refused(err) {
				return err
			}
			w.fail(large, err)
		}
	}
	left := int64(len(p.batch))
	for i, part := range split(p.batch) {
		left -= int64(len(part))
		at := upTo
		if left > 0 {
			at = part[len(part)-1].Key
		}
		err := f.fillPart(ctx, &w, part, func(tx transaction) error { return tx.note(ctx, f.client, at, done-left) })
		if err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
	}
	if len(w.failures) > 0 {
		return &record.WriteError{Server: "neo4j", Failures: w.failures}
	}
	return nil
}

// fillPart is one transaction, unless the server refuses something in it.
func (f *Filler) fillPart(ctx context.Context, w *writer, part []prepared, note func(transaction) error) error {
	err := f.create(ctx, part, note)
	if f.whole && refused(err) { // a node may be there after all
		f.whole = false
		err = f.create(ctx, part, note)
	}
	if !refused(err) {
		return err
	}
	w.write(ctx, part) // one by one in the end, and noted apart
	return f.client.transact(ctx, note)
}

// split bounds what comes into one transaction. There is at least one part, so that
// there is one to note the progress in.
func split(batch []prepared) [][]prepared {
	parts := [][]prepared{nil}
	edges := 0
	for _, p := range batch {
		last := &parts[len(parts)-1]
		if len(*last) > 0 && (len(*last) == FillRecords || edges+len(p.Edges) > fillEdges) {
			parts, edges = append(parts, nil), 0
			last = &parts[len(parts)-1]
		}
		*last = append(*last, p)
		edges += len(p.Edges)
	}
	return parts
}

// create writes the records' nodes, then those that edges need, then the edges.
func (f *Filler) create(ctx context.Context, batch []prepared, note func(transaction) error) error {
	err := f.client.transact(ctx, func(tx transaction) error {
		f.fresh = map[string]int64{}
		if err := f.makeRecords(ctx, tx, batch); err != nil {
			return err
		}
		if err := f.makeTargets(ctx, tx, batch); err != nil {
			return err
		}
		if err := f.makeEdges(ctx, tx, batch); err != nil {
			return err
		}
		return note(tx)
	})
	if err == nil && f.known.add(f.fresh) {
		f.whole = false
	}
	return err
}

// makeRecords makes the records' nodes, or of those that edges have needed before the records'.
func (f *Filler) makeRecords(ctx context.Context, tx transaction, batch []prepared) error {
	unknown, dangling := map[string][]node{}, map[string][]any{}
	for _, p := range batch {
		labels := strings.Join(p.labels, ":")
		if labels != "" {
			labels = ":" + labels
		}
		name := string(RecordNode) + p.key
		if id, ok := f.known.id(name); ok {
			dangling[labels] = append(dangling[labels], map[string]any{"id": id, "p": p.properties})
		} else {
			unknown[labels] = append(unknown[labels], node{name, p.key, p.properties})
		}
	}
	for _, labels := range sortedKeys(unknown) {
		clause := "MERGE (n:Record {key: row.key}) SET n = row.p, n:Record" + labels
		if f.whole {
			clause = "CREATE (n:Record" + labels + ") SET n = row.p"
		}
		if err := f.makeNodes(ctx, tx, RecordNode, clause, unknown[labels]); err != nil {
			return err
		}
	}
	for _, labels := range sortedKeys(dangling) {
		clause := "UNWIND $rows AS row MATCH (n) WHERE id(n) = row.id SET n = row.p, n:Record" + labels
		if err := tx.run(ctx, "set records", clause, dangling[labels]); err != nil {
			return err
		}
	}
	return nil
}

// makeTargets makes the nodes that edges need and that are not known to be there.
func (f *Filler) makeTargets(ctx context.Context, tx transaction, batch []prepared) error {
	verb := "MERGE (n:%s {key: row.key}) ON CREATE SET n += row.p"
	if f.whole {
		verb = "CREATE (n:%s {key: row.key}) SET n += row.p"
	}
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		var needed []node
		seen := map[string]struct{}{}
		for _, p := range batch {
			for key, properties := range p.targets[kind] {
				name := string(kind) + key
				if _, ok := f.idOf(name); ok {
					continue
				}
				if _, twice := seen[key]; !twice {
					seen[key] = struct{}{}
					needed = append(needed, node{name, key, properties})
				}
			}
		}
		if err := f.makeNodes(ctx, tx, kind, fmt.Sprintf(verb, kind), needed); err != nil {
			return err
		}
	}
	return nil
}

// node is a node to make.
type node struct {
	name       string // in the memory
	key        string
	properties map[string]any
}

// makeNodes runs what makes nodes, and learns what the server calls them.
func (f *Filler) makeNodes(ctx context.Context, tx transaction, kind NodeKind, clause string, nodes []node) error {
	for part := range slices.Chunk(nodes, maxRows) {
		rows := make([]any, len(part))
		for i, n := range part {
			rows[i] = map[string]any{"i": i, "key": n.key, "p": n.properties}
		}
		result, err := tx.Run(ctx, "UNWIND $rows AS row "+clause+" RETURN row.i, id(n)", map[string]any{"rows": rows})
		if err != nil {
			return fmt.Errorf("make %s nodes: %w", kind, err)
		}
		found, err := result.Collect(ctx)
		if err != nil {
			return fmt.Errorf("make %s nodes: %w", kind, err)
		}
		for _, row := range found {
			i, _ := row.Values[0].(int64)
			f.fresh[part[i].name], _ = row.Values[1].(int64)
		}
	}
	return nil
}

// makeEdges makes edges between nodes that are all known.
func (f *Filler) makeEdges(ctx context.Context, tx transaction, batch []prepared) error {
	groups := map[string][]any{}
	for _, p := range batch {
		for group, edges := range p.edges {
			for _, edge := range edges {
				from, _ := f.idOf(string(group.From) + edge.from)
				to, _ := f.idOf(string(group.To) + edge.to)
				groups[string(group.Type)] = append(groups[string(group.Type)], []any{from, to, edge.properties})
			}
		}
	}
	for _, edgeType := range sortedKeys(groups) {
		for part := range slices.Chunk(groups[edgeType], maxRows) {
			made, err := tx.created(ctx, fmt.Sprintf(`UNWIND $rows AS row
				MATCH (from) WHERE id(from) = row[0]
				MATCH (to) WHERE id(to) = row[1]
				CREATE (from)-[e:%s]->(to) SET e = row[2]`, edgeType), part)
			if err != nil {
				return fmt.Errorf("make edges: %w", err)
			}
			if made != len(part) {
				return fmt.Errorf("make edges: %d %s edges made of %d: nodes that were there are gone", made, edgeType, len(part))
			}
		}
	}
	return nil
}

// idOf is what the server calls a node that is there.
func (f *Filler) idOf(name string) (int64, bool) {
	if id, ok := f.fresh[name]; ok {
		return id, true
	}
	return f.known.id(name)
}

// created runs a statement and tells how many edges it has made.
func (tx transaction) created(ctx context.Context, cypher string, rows []any) (int, error) {
	result, err := tx.Run(ctx, cypher, map[string]any{"rows": rows})
	if err != nil {
		return 0, err
	}
	summary, err := result.Consume(ctx)
	if err != nil {
		return 0, err
	}
	return summary.Counters().RelationshipsCreated(), nil
}

// note keeps how far the generation is filled.
func (tx transaction) note(ctx context.Context, c *Client, upTo record.Key, done int64) error {
	return tx.run(ctx, "note the progress", "UNWIND $rows AS row MERGE (f:Filling {key: row.key}) SET f = row", []any{map[string]any{
		"key": c.space, "space": c.generationKey(), "collection": string(upTo.Collection), "did": string(upTo.DID), "rkey": string(upTo.Rkey), "done": done,
	}})
}
