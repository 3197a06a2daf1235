package graph

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// Subgraph is what one record contributes: its node, and the edges it states.
type Subgraph struct {
	Key     record.Key
	Version int64
	Deleted bool // Labels, Properties and Edges are then not looked at
	// Labels of the node besides Record, each an ASCII capital followed by up to 63
	// letters and digits. They come from a bounded set: every label that was ever
	// used stays in the database's catalogue.
	Labels []string
	// Properties of the node: string, bool, int, int64, float64 or []string, of
	// modest size. A nil is left out. A name that the graph itself uses (key, uri,
	// did, collection, rkey, or one with a leading underscore) is stored with an
	// underscore after it.
	Properties map[string]any
	Edges      []Edge
}

// Edge is a relation that a record states. It need not start or end at that record.
type Edge struct {
	Type       EdgeType
	From, To   Node
	Properties map[string]any // as of [Subgraph]
}

// Stated are the subgraph's edges as they are shown.
func (s Subgraph) Stated() []traversal.Edge {
	edges := make([]traversal.Edge, len(s.Edges))
	for i, e := range s.Edges {
		edges[i] = traversal.Edge{Type: e.Type, From: e.From.ID(), To: e.To.ID(), Properties: e.Properties, Stated: s.Key.String()}
	}
	return edges
}

// EdgeType is the type of a relationship.
type EdgeType = traversal.EdgeType

// The relationship types.
const (
	ParentOf     = traversal.ParentOf
	References   = traversal.References
	Annotates    = traversal.Annotates
	UsesOntology = traversal.UsesOntology
	ByPersona    = traversal.ByPersona
	KnowledgeRef = traversal.KnowledgeRef
	SubtypeOf    = traversal.SubtypeOf
	MemberOf     = traversal.MemberOf
	Aligns       = traversal.Aligns
	GraphEdge    = traversal.GraphEdge
	LinksEprint  = traversal.LinksEprint
)

// edgeTypes is all of them. Only these reach a statement's text.
var edgeTypes = traversal.EdgeTypes

// NodeKind is what a node stands for; it is also its first label.
type NodeKind string

// The kinds of nodes.
const (
	RecordNode    NodeKind = "Record"    // has URI, the record's AT-URI
	KnowledgeNode NodeKind = "Knowledge" // has Source and Identifier
	ExternalNode  NodeKind = "External"  // has URI, of anything else
)

// Node names one end of an edge. Make it with [Record], [Knowledge], [External] or [Referred].
type Node struct {
	Kind       NodeKind
	URI        string
	Source     string // the knowledge base, such as wikidata
	Identifier string // in it, such as Q42
}

// Record is the node of a record, which need not be there yet.
func Record(key record.Key) Node { return Node{Kind: RecordNode, URI: key.String()} }

// Knowledge is the node of an entry in a knowledge base.
func Knowledge(source, identifier string) Node {
	return Node{Kind: KnowledgeNode, Source: source, Identifier: identifier}
}

// External is the node of something that is no record: a web page, a DOI.
func External(uri string) Node { return Node{Kind: ExternalNode, URI: uri} }

// Referred is the node that a reference leads to: a record's, or an external one
// where the AT-URI names a repository, a collection, or its repository by handle.
func Referred(uri syntax.ATURI) Node {
	key, err := record.ParseKey(uri)
	if err != nil {
		return External(string(uri))
	}
	return Record(key)
}

// maxKey is the longest key in bytes that is kept as it is. An index key may
// have about 8,000.
const maxKey = 2000

// hashed is what the key of a node with a longer name begins with.
const hashed = "sha256:"

// key is the node's in the index of its kind. Record and external nodes have
// their URI, knowledge nodes the JSON array of source and identifier.
func (c *Client) key(n Node) string {
	key := n.URI
	if n.Kind == KnowledgeNode {
		pair, _ := json.Marshal([2]string{n.Source, n.Identifier}) // strings always encode
		key = string(pair)
	}
	return c.space + indexable(key)
}

// indexable is a text itself, or a hash of one that is too long for an index key.
func indexable(text string) string {
	if len(text) <= maxKey {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hashed + hex.EncodeToString(sum[:])
}
