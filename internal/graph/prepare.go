package graph

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// format is part of every digest: raise it when the same subgraph is to be
// stored in another way, so that it is written again.
const format = 1

// prepared is a subgraph in the form that statements take.
type prepared struct {
	Subgraph
	key        string
	labels     []string // sorted, without Record
	properties map[string]any
	edges      map[edgeGroup][]edgeRow
	targets    map[NodeKind]map[string]map[string]any // by key: the properties of nodes that the edges need
	starts     []string                               // types of edges that start at this record, sorted
	owns       []string                               // types of edges that start elsewhere, sorted
	digest     string                                 // of all that is stored; two equal ones need no second write
}

// edgeRow is an edge between two keys.
type edgeRow struct {
	from, to   string
	properties map[string]any
}

// edgeGroup is what edges that are made together have in common.
type edgeGroup struct {
	Type EdgeType
	ends
}

// ends are the kinds of nodes that an edge leads from and to.
type ends struct{ From, To NodeKind }

var labelPattern = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)

// prepare checks a subgraph. Its errors are permanent: the caller's names or
// values are not ones that a graph can have.
func (c *Client) prepare(s Subgraph) (prepared, error) {
	p := prepared{Subgraph: s, key: c.key(Record(s.Key))}
	if s.Deleted {
		p.Edges = nil
		p.properties = map[string]any{"_dangling": true}
	} else {
		if err := p.setNode(s); err != nil {
			return prepared{}, err
		}
		if err := c.setEdges(&p, s.Edges); err != nil {
			return prepared{}, err
		}
	}
	p.properties["key"] = p.key
	p.properties["uri"] = s.Key.String()
	encoded, err := json.Marshal(struct {
		Format     int
		Labels     []string
		Properties map[string]any
		Edges      []Edge
	}{format, p.labels, p.properties, p.Edges})
	if err != nil {
		return prepared{}, fmt.Errorf("digest of subgraph: %w", err)
	}
	sum := sha256.Sum256(encoded)
	p.digest = hex.EncodeToString(sum[:16])
	p.properties["_version"] = s.Version
	p.properties["_digest"] = p.digest
	p.properties["_starts"] = p.starts
	p.properties["_owns"] = p.owns
	p.properties["_edges"] = len(p.Edges)
	return p, nil
}

func (p *prepared) setNode(s Subgraph) error {
	for _, label := range s.Labels {
		if !labelPattern.MatchString(label) || isKind(label) {
			return fmt.Errorf("label %q is not one that a record's node can have", label)
		}
	}
	p.labels = slices.Compact(slices.Sorted(slices.Values(s.Labels)))
	var err error
	if p.properties, err = properties(s.Properties, nodeNames...); err != nil {
		return err
	}
	p.properties["did"] = string(s.Key.DID)
	p.properties["collection"] = string(s.Key.Collection)
	p.properties["rkey"] = string(s.Key.Rkey)
	return nil
}

func (c *Client) setEdges(p *prepared, edges []Edge) error {
	p.edges = map[edgeGroup][]edgeRow{}
	p.targets = map[NodeKind]map[string]map[string]any{}
	starts, owns := map[string]bool{}, map[string]bool{}
	for _, e := range edges {
		if !slices.Contains(edgeTypes, e.Type) {
			return fmt.Errorf("edge type %q is not one of the graph's", e.Type)
		}
		if !isKind(string(e.From.Kind)) || !isKind(string(e.To.Kind)) {
			return fmt.Errorf("%s edge from a %q to a %q node: not kinds of nodes", e.Type, e.From.Kind, e.To.Kind)
		}
		props, err := properties(e.Properties)
		if err != nil {
			return fmt.Errorf("%s edge: %w", e.Type, err)
		}
		from, to := c.key(e.From), c.key(e.To)
		if e.From.Kind == RecordNode && from == p.key {
			starts[string(e.Type)] = true
		} else {
			owns[string(e.Type)] = true
			props["_owner"] = p.key
		}
		p.need(e.From, from)
		p.need(e.To, to)
		group := edgeGroup{e.Type, ends{e.From.Kind, e.To.Kind}}
		p.edges[group] = append(p.edges[group], edgeRow{from, to, props})
	}
	p.starts, p.owns = sortedKeys(starts), sortedKeys(owns)
	return nil
}

// need notes a node that an edge ends at, with what is known of it from its name alone.
func (p *prepared) need(n Node, key string) {
	known := map[string]any{"uri": n.URI}
	switch n.Kind {
	case RecordNode:
		if key == p.key {
			return
		}
		known["_dangling"] = true
	case KnowledgeNode:
		known = map[string]any{"source": n.Source, "identifier": n.Identifier, "_identifier": indexable(n.Identifier)}
	}
	if p.targets[n.Kind] == nil {
		p.targets[n.Kind] = map[string]map[string]any{}
	}
	p.targets[n.Kind][key] = known
}

// properties copies what a node or edge is to have, renaming what would be
// taken for the graph's own.
func properties(in map[string]any, reserved ...string) (map[string]any, error) {
	out := make(map[string]any, len(in)+8)
	for name, value := range in {
		switch value.(type) {
		case nil:
			continue
		case string, bool, int, int64, float64, []string:
		default:
			return nil, fmt.Errorf("property %q is a %T, which a graph cannot hold", name, value)
		}
		if name == "" || strings.Contains(name, "\x00") {
			return nil, fmt.Errorf("property name %q is not one that a graph can have", name)
		}
		if isOwn(name, reserved) {
			name += "_"
		}
		out[name] = value
	}
	return out, nil
}

// nodeNames are the graph's own properties of a record's node, besides those with a leading underscore.
var nodeNames = []string{"key", "uri", "did", "collection", "rkey"}

func isOwn(name string, reserved []string) bool {
	return strings.HasPrefix(name, "_") || slices.Contains(reserved, name)
}

func isKind(name string) bool {
	switch NodeKind(name) {
	case RecordNode, KnowledgeNode, ExternalNode:
		return true
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
