package project

import (
	"encoding/json"
	"slices"
	"unicode/utf8"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
)

// Bounds of what a node or an edge carries; the record itself is in PostgreSQL.
const (
	maxProperty = 1024 // bytes of a text
	maxElements = 64   // of a list
)

// subgraph is what a record contributes to the graph. Its size is bounded by the
// record's: an edge or property takes more bytes there than it repeats.
func (p *plan) subgraph(c *catalog.Collection, rec record.Record, value map[string]any) graph.Subgraph {
	out := graph.Subgraph{Key: rec.Key, Version: rec.Version}
	found := edgesOf(c, rec)
	if c.Foreign {
		found.loose("", value)
		out.Edges = found.list
		return out
	}
	for _, label := range []string{p.label, p.kindLabel(value)} {
		if label != "" {
			out.Labels = append(out.Labels, label)
		}
	}
	out.Properties = nodeProperties(p.shape, value)
	found.object(c.Schema, value)
	p.relations(c, found, value)
	out.Edges = found.list
	return out
}

// relations adds the edges that a record states between others: by being a
// membership, by having a source and a target, or by listing objects that have.
func (p *plan) relations(c *catalog.Collection, found *edges, value map[string]any) {
	if m, ok := memberships[c.NSID]; ok {
		found.member(m, edgeProperties(p.shape, value), value)
	}
	if p.shape.relates() {
		found.relation(edgeBetween(c), edgeProperties(p.shape, value), value)
	}
	for _, prop := range p.shape.props {
		if prop.kind != array || !prop.items.relates() {
			continue
		}
		entries, _ := value[prop.name].([]any)
		for _, entry := range entries {
			if entry, ok := entry.(map[string]any); ok {
				found.relation(edgeBetween(c), edgeProperties(prop.items, entry), entry)
			}
		}
	}
}

func edgeBetween(c *catalog.Collection) graph.EdgeType {
	if c.Namespace == "alignment" {
		return graph.Aligns
	}
	return graph.GraphEdge
}

// kindLabel is the label that a node's nodeType gives it: only a known value
// does, since whoever writes records could make up any number of others.
func (p *plan) kindLabel(value map[string]any) string {
	kind, _ := value["nodeType"].(string)
	if s := p.shape.prop("nodeType"); s == nil || kind == "custom" || !slices.Contains(s.known, kind) {
		return ""
	}
	return nodeLabel(kind)
}

// nodeProperties are the record's own short ones, by their names in the lexicon:
// terms, labels, numbers, booleans and times, and lists of terms and labels.
func nodeProperties(s *shape, value map[string]any) map[string]any {
	out := map[string]any{}
	for _, p := range s.props {
		if v := propertyOf(p.shape, value[p.name]); v != nil {
			out[p.name] = v
		}
	}
	return out
}

// propertyOf is the value as a node or edge keeps it, nil if it does not.
// References are left out: they are edges.
func propertyOf(s *shape, v any) any {
	switch s.kind {
	case text, datetime:
		if str, ok := v.(string); ok && s.form() != prose && s.format != "at-uri" {
			return cut(str, maxProperty)
		}
	case integer:
		if n, ok := v.(json.Number); ok {
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case boolean:
		if b, ok := v.(bool); ok {
			return b
		}
	case array:
		return propertyList(s.items, v)
	}
	return nil
}

// propertyList is the first texts of a list; a node's lists are of one type.
func propertyList(items *shape, v any) any {
	values, ok := v.([]any)
	if !ok || items.kind != text {
		return nil
	}
	var out []string
	for _, v := range values[:min(len(values), maxElements)] {
		if str, ok := propertyOf(items, v).(string); ok {
			out = append(out, str)
		}
	}
	if out == nil {
		return nil
	}
	return out
}

// cut shortens a text to at most limit bytes, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
