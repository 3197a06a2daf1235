package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
)

const (
	// maxRows bounds the rows of one statement, and with them its parameters' size.
	maxRows = 2000
	// planned keeps the plan that a statement once got. All of them find their nodes by
	// unique keys, so that no other plan is ever better, while the server would plan each
	// anew whenever the graph has grown by half: for seconds in which nobody can write.
	planned = "CYPHER replan=skip "
)

// transaction has the steps of a write, each one statement or a few for a whole
// batch.
type transaction struct {
	neo4j.ExplicitTransaction
}

// replace brings the batch's records up to date, and returns those that have too
// many edges to be done together with others. All keys in the batch differ.
func (tx transaction) replace(ctx context.Context, batch []prepared) ([]prepared, error) {
	if err := tx.lock(ctx, batch); err != nil {
		return nil, err
	}
	states, err := tx.states(ctx, batch)
	if err != nil {
		return nil, err
	}
	batch, unchanged, large := choose(batch, states)
	if err := tx.setVersions(ctx, unchanged); err != nil {
		return nil, err
	}
	if err := tx.deleteEdges(ctx, batch, states); err != nil {
		return nil, err
	}
	if err := tx.mergeTargets(ctx, batch); err != nil {
		return nil, err
	}
	if err := tx.createEdges(ctx, batch); err != nil {
		return nil, err
	}
	return large, tx.setNodes(ctx, batch, states)
}

// choose leaves out the records that are up to date, and puts aside those of
// which only the version changes and those that do not fit in one transaction.
func choose(batch []prepared, states map[string]state) (changed, unchanged, large []prepared) {
	edges := 0
	for _, p := range batch {
		s := states[p.key]
		count := s.edges + len(p.Edges)
		switch {
		case s.covers(p):
		case s.known && s.digest == p.digest:
			unchanged = append(unchanged, p)
		case edges+count > maxEdges:
			large = append(large, p)
		default:
			changed = append(changed, p)
			edges += count
		}
	}
	return changed, unchanged, large
}

// run runs a statement over rows, a part of them at a time.
func (tx transaction) run(ctx context.Context, doing, cypher string, rows []any) error {
	for part := range slices.Chunk(rows, maxRows) {
		result, err := tx.Run(ctx, planned+cypher, map[string]any{"rows": part})
		if err == nil {
			_, err = result.Consume(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	return nil
}

// lock makes the records' nodes where they are missing, and holds off other
// writers of the same records: setting a property, even to what it was, locks
// the node. Only then are versions worth reading, in a statement of its own.
func (tx transaction) lock(ctx context.Context, batch []prepared) error {
	rows := make([]any, len(batch))
	for i, p := range batch {
		rows[i] = map[string]any{"key": p.key, "uri": p.Key.String()}
	}
	return tx.run(ctx, "lock nodes", `UNWIND $rows AS row
		MERGE (n:Record {key: row.key})
		ON CREATE SET n._dangling = true
		SET n.uri = row.uri`, rows)
}

// state is what is stored of a record.
type state struct {
	known        bool // false for a node that has only been referred to
	version      int64
	digest       string
	labels       []string // without Record
	starts, owns []string // as in prepared
	edges        int      // that the record states, or a few more
	claim        string   // of the writer that is replacing a large record, see replaceLarge
}

// covers tells whether p has nothing to add to what is stored.
func (s state) covers(p prepared) bool {
	return s.known && (s.version > p.Version || s.version == p.Version && s.digest == p.digest)
}

func (tx transaction) states(ctx context.Context, batch []prepared) (map[string]state, error) {
	result, err := tx.Run(ctx, planned+`UNWIND $keys AS key
		MATCH (n:Record {key: key})
		RETURN key, n._version AS version, n._digest AS digest, labels(n) AS labels,
			n._starts AS starts, n._owns AS owns, n._edges AS edges, n._claim AS claim`,
		map[string]any{"keys": keys(batch)})
	if err != nil {
		return nil, fmt.Errorf("read versions: %w", err)
	}
	rows, err := result.Collect(ctx)
	if err != nil {
		return nil, fmt.Errorf("read versions: %w", err)
	}
	states := make(map[string]state, len(rows))
	for _, row := range rows {
		values := row.AsMap()
		key, _ := values["key"].(string)
		s := state{labels: stringList(values["labels"]), starts: stringList(values["starts"]), owns: stringList(values["owns"])}
		s.version, s.known = values["version"].(int64)
		s.digest, _ = values["digest"].(string)
		s.claim, _ = values["claim"].(string)
		edges, _ := values["edges"].(int64)
		s.edges = int(edges)
		if strange := slices.IndexFunc(slices.Concat(s.starts, s.owns), isStrange); strange >= 0 {
			return nil, fmt.Errorf("record node %s has edges of types %q and %q, not all of which this graph has", key, s.starts, s.owns)
		}
		s.labels = slices.DeleteFunc(s.labels, func(label string) bool { return label == string(RecordNode) })
		states[key] = s
	}
	return states, nil
}

func isStrange(edgeType string) bool { return !slices.Contains(edgeTypes, EdgeType(edgeType)) }

// deleteEdges removes what the records stated before. Which types these are is
// kept with the record, so a node with a million edges of others is not searched.
func (tx transaction) deleteEdges(ctx context.Context, batch []prepared, states map[string]state) error {
	starts, owns := map[EdgeType][]any{}, map[EdgeType][]any{}
	for _, p := range batch {
		for _, name := range states[p.key].starts {
			starts[EdgeType(name)] = append(starts[EdgeType(name)], p.key)
		}
		for _, name := range states[p.key].owns {
			owns[EdgeType(name)] = append(owns[EdgeType(name)], p.key)
		}
	}
	for _, edge := range edgeTypes {
		err := tx.run(ctx, "delete edges from the record", fmt.Sprintf(`UNWIND $rows AS key
			MATCH (:Record {key: key})-[e:%s]->() WHERE e._owner IS NULL
			DELETE e`, edge), starts[edge])
		if err != nil {
			return err
		}
		err = tx.run(ctx, "delete edges between others", fmt.Sprintf(`UNWIND $rows AS key
			MATCH ()-[e:%s {_owner: key}]->()
			DELETE e`, edge), owns[edge])
		if err != nil {
			return err
		}
	}
	return nil
}

// setVersions is all that is left to do where a record is projected again and
// comes out as before.
func (tx transaction) setVersions(ctx context.Context, batch []prepared) error {
	rows := make([]any, len(batch))
	for i, p := range batch {
		rows[i] = map[string]any{"key": p.key, "version": p.Version}
	}
	return tx.run(ctx, "set versions", `UNWIND $rows AS row
		MATCH (n:Record {key: row.key})
		SET n._version = row.version`, rows)
}

// setNodes sets properties and labels, the version among them. Labels are given by
// parameters, as edges' types are below: a server plans one statement faster than
// one for each of them.
func (tx transaction) setNodes(ctx context.Context, batch []prepared, states map[string]state) error {
	var outdated []any
	rows := make([]any, len(batch))
	for i, p := range batch {
		rows[i] = map[string]any{"key": p.key, "properties": p.properties, "labels": stringsOf(p.labels)}
		old := slices.DeleteFunc(slices.Clone(states[p.key].labels), func(label string) bool { return slices.Contains(p.labels, label) })
		if len(old) > 0 {
			outdated = append(outdated, map[string]any{"key": p.key, "labels": old})
		}
	}
	err := tx.run(ctx, "remove labels", `UNWIND $rows AS row
		MATCH (n:Record {key: row.key})
		REMOVE n:$(row.labels)`, outdated)
	if err != nil {
		return err
	}
	return tx.run(ctx, "set properties", `UNWIND $rows AS row
		MATCH (n:Record {key: row.key})
		SET n = row.properties, n:$(row.labels)`, rows)
}

// stringsOf is a list that is there even if it is empty.
func stringsOf(list []string) []string { return append([]string{}, list...) }

// mergeTargets makes the nodes that edges need and that are not there, in order of their keys.
func (tx transaction) mergeTargets(ctx context.Context, batch []prepared) error {
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		needed := map[string]map[string]any{}
		for _, p := range batch {
			for key, known := range p.targets[kind] {
				needed[key] = known
			}
		}
		rows := make([]any, 0, len(needed))
		for _, key := range sortedKeys(needed) {
			rows = append(rows, map[string]any{"key": key, "known": needed[key]})
		}
		err := tx.run(ctx, "make nodes", fmt.Sprintf(`UNWIND $rows AS row
			MERGE (n:%s {key: row.key})
			ON CREATE SET n += row.known`, kind), rows)
		if err != nil {
			return err
		}
	}
	return nil
}

func (tx transaction) createEdges(ctx context.Context, batch []prepared) error {
	rows := map[ends][]any{}
	for _, p := range batch {
		for group, edges := range p.edges {
			for _, edge := range edges {
				rows[group.ends] = append(rows[group.ends], map[string]any{"from": edge.from, "to": edge.to, "type": string(group.Type), "properties": edge.properties})
			}
		}
	}
	for ends, rows := range rows {
		err := tx.run(ctx, "make edges", fmt.Sprintf(`UNWIND $rows AS row
			MATCH (from:%s {key: row.from})
			MATCH (to:%s {key: row.to})
			CREATE (from)-[e:$(row.type)]->(to)
			SET e = row.properties`, ends.From, ends.To), rows)
		if err != nil {
			return err
		}
	}
	return nil
}

func keys(batch []prepared) []string {
	out := make([]string, len(batch))
	for i, p := range batch {
		out[i] = p.key
	}
	return out
}

// stringList is a list property; nil where it is not set.
func stringList(v any) []string {
	list, _ := v.([]any)
	out := make([]string, 0, len(list))
	for _, element := range list {
		if s, ok := element.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
