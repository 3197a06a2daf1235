package rest

import (
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// Views of the graph.
type (
	graphNode struct {
		Node       string         `json:"node"`
		Kind       traversal.Kind `json:"kind"`
		Type       string         `json:"type,omitempty"` // collection
		Source     string         `json:"source,omitempty"`
		Identifier string         `json:"identifier,omitempty"`
		Label      string         `json:"label,omitempty"`
		Dangling   bool           `json:"dangling"`
		Depth      int            `json:"depth"`
	}
	graphEdge struct {
		Type       traversal.EdgeType `json:"type"`
		From       string             `json:"from"`
		To         string             `json:"to"`
		Properties map[string]any     `json:"properties"`
		StatedBy   string             `json:"statedBy"`
	}
	graphNeighbor struct {
		Node      graphNode           `json:"node"`
		Edge      graphEdge           `json:"edge"`
		Direction traversal.Direction `json:"direction"`
	}
	neighbors struct {
		Node      graphNode       `json:"node"`
		Neighbors []graphNeighbor `json:"neighbors"`
		Cursor    string          `json:"cursor,omitempty"`
		caveats
	}
	grounding struct {
		Entries   []graphNode     `json:"entries"`
		Neighbors []graphNeighbor `json:"neighbors"`
		Cursor    string          `json:"cursor,omitempty"`
		caveats
	}
	part struct {
		Node      graphNode   `json:"node"`
		Nodes     []graphNode `json:"nodes"`
		Edges     []graphEdge `json:"edges"`
		Truncated bool        `json:"truncated"`
		caveats
	}
	graphPath struct {
		Found bool        `json:"found"`
		Hops  int         `json:"hops"`
		Nodes []graphNode `json:"nodes"`
		Edges []graphEdge `json:"edges"`
		caveats
	}
)

// caveats are what any of them may have to say of itself.
type caveats struct {
	Degraded   bool `json:"degraded,omitempty"`
	Incomplete bool `json:"incomplete,omitempty"`
}

func (c caveats) isDegraded() bool { return c.Degraded || c.Incomplete }

func nodeView(n traversal.Node) graphNode {
	return graphNode{
		Node: nameOf(n.ID), Kind: n.Kind, Type: string(n.Collection()), Source: n.Source, Identifier: n.Identifier,
		Label: n.Label, Dangling: n.Dangling, Depth: n.Depth,
	}
}

func nodeViews(nodes []traversal.Node) []graphNode {
	out := make([]graphNode, len(nodes))
	for i := range nodes {
		out[i] = nodeView(nodes[i])
	}
	return out
}

func edgeView(e traversal.Edge) graphEdge {
	return graphEdge{Type: e.Type, From: nameOf(e.From), To: nameOf(e.To), Properties: e.Properties, StatedBy: e.Stated}
}

func edgeViews(edges []traversal.Edge) []graphEdge {
	out := make([]graphEdge, len(edges))
	for i := range edges {
		out[i] = edgeView(edges[i])
	}
	return out
}

func neighborViews(list []traversal.Neighbor) []graphNeighbor {
	out := make([]graphNeighbor, len(list))
	for i, n := range list {
		out[i] = graphNeighbor{Node: nodeView(n.Node), Edge: edgeView(n.Edge), Direction: traversal.Out}
		if n.In {
			out[i].Direction = traversal.In
		}
	}
	return out
}

func neighborsView(n traversal.Neighbors) neighbors {
	return neighbors{Node: nodeView(n.Root), Neighbors: neighborViews(n.Neighbors), Cursor: n.Cursor, caveats: caveats(n.Caveats)}
}

func partView(p traversal.Part) part {
	return part{Node: nodeView(p.Root), Nodes: nodeViews(p.Nodes), Edges: edgeViews(p.Edges), Truncated: p.Truncated, caveats: caveats(p.Caveats)}
}

// Schemas and examples of the views.

func graphNodeSchema() Schema {
	return Named("GraphNode", Object(map[string]Schema{
		"node":  String("What names it in parameters: an AT-URI, a DID, a web address, or knowledge:source:identifier."),
		"kind":  {"type": "string", "enum": []string{string(traversal.Record), string(traversal.Knowledge), string(traversal.External)}},
		"type?": String("Collection of a record."), "source?": String("The knowledge base of an entry."), "identifier?": String("Of an entry in its knowledge base."),
		"label?":   String("What it is called, where a record says so."),
		"dangling": Boolean("A record that is referred to and not in the index."),
		"depth":    Integer("Hops from where the question began."),
	}))
}

func graphEdgeSchema() Schema {
	return Named("GraphEdge", Object(map[string]Schema{
		"type": edgeTypeSchema(), "from": String("The node it starts at."), "to": String("The node it leads to."),
		"properties": {"type": "object", "description": "What its record says of it: edge_type, confidence, ordinal, path and others."},
		"statedBy":   uriSchema("The record that states it."),
	}))
}

func edgeTypeSchema() Schema {
	return Schema{"type": "string", "enum": traversal.EdgeTypes}
}

func neighborSchema() Schema {
	return Named("GraphNeighbor", Object(map[string]Schema{
		"node": graphNodeSchema(), "edge": graphEdgeSchema(),
		"direction": {"type": "string", "enum": []string{string(traversal.Out), string(traversal.In)}},
	}))
}

func graphDegraded() Schema {
	return Boolean("True where the graph's own store was away and another one answered, which may be behind.")
}

func graphIncomplete() Schema {
	return Boolean("True while the graph is being filled, as after it was turned on: records may be missing.")
}

func neighborsAnswer() Answer {
	return Answer{
		Description: "A page of edges.",
		Schema: Named("GraphNeighbors", Object(map[string]Schema{
			"node": graphNodeSchema(), "neighbors": List(neighborSchema()), "cursor?": cursorSchema(), "degraded?": graphDegraded(), "incomplete?": graphIncomplete(),
		})),
		Example: neighborsView(traversal.Neighbors{Root: exampleNode(0), Neighbors: []traversal.Neighbor{{Edge: exampleEdge(), Node: exampleEntry()}}}),
	}
}

func groundingAnswer() Answer {
	return Answer{
		Description: "The entries, and a page of what refers to them.",
		Schema: Object(map[string]Schema{
			"entries": List(graphNodeSchema()), "neighbors": List(neighborSchema()), "cursor?": cursorSchema(), "degraded?": graphDegraded(), "incomplete?": graphIncomplete(),
		}),
		Example: grounding{
			Entries:   nodeViews([]traversal.Node{exampleEntry()}),
			Neighbors: neighborViews([]traversal.Neighbor{{Edge: exampleEdge(), Node: exampleNode(1), In: true}}),
		},
	}
}

func partAnswer() Answer {
	return Answer{
		Description: "A part of the graph: nodes by depth, and the edges between them.",
		Schema: Named("GraphPart", Object(map[string]Schema{
			"node": graphNodeSchema(), "nodes": List(graphNodeSchema()), "edges": List(graphEdgeSchema()),
			"truncated": Boolean("Whether more nodes or edges are within reach."), "degraded?": graphDegraded(), "incomplete?": graphIncomplete(),
		})),
		Example: partView(traversal.Part{Root: exampleNode(0), Nodes: []traversal.Node{exampleNode(0), exampleEntry()}, Edges: []traversal.Edge{exampleEdge()}}),
	}
}

func pathAnswer() Answer {
	return Answer{
		Description: "The way, or that there is none.",
		Schema: Object(map[string]Schema{
			"found": Boolean("Whether there is a way."), "hops": Integer("Edges of the way, or the most that were looked for."),
			"nodes": List(graphNodeSchema()), "edges": List(graphEdgeSchema()), "degraded?": graphDegraded(), "incomplete?": graphIncomplete(),
		}),
		Example: graphPath{Found: true, Hops: 1, Nodes: nodeViews([]traversal.Node{exampleNode(0), exampleEntry()}), Edges: edgeViews([]traversal.Edge{exampleEdge()})},
	}
}

func exampleNode(depth int) traversal.Node {
	return traversal.Node{ID: traversal.Of(exampleURI("pub.layers.graph.graphNode")), Label: "English", Depth: depth}
}

func exampleEntry() traversal.Node {
	return traversal.Node{ID: traversal.OfKnowledge("wikidata", "Q1860"), Label: "English", Depth: 1}
}

func exampleEdge() traversal.Edge {
	return traversal.Edge{
		Type: traversal.KnowledgeRef, From: exampleNode(0).ID, To: exampleEntry().ID,
		Properties: map[string]any{"path": "knowledgeRefs[]", "label": "English"}, Stated: exampleURI("pub.layers.graph.graphNode"),
	}
}
