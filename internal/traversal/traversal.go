// Package traversal has the questions that are asked of the graph, and finds their
// answers hop by hop from whatever store holds the edges ([Source]). Each question
// reads a bounded number of edges and ends with its context's deadline: it says so
// ([TooLargeError], [ErrDeadline]) rather than answer with less.
//
// Records of inactive accounts are never shown: what they state does not count, and
// where others refer to them they look like records that are not there. A record
// that is not there (dangling) is shown at the end of an edge, but nothing is
// followed through it, unless the question is about it.
package traversal

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// EdgeType is the type of an edge. Kinds of relation that come from data are a
// property of [GraphEdge], never a type of their own.
type EdgeType string

// The edge types, and the way they point.
const (
	ParentOf     EdgeType = "PARENT_OF"     // parent → expression
	References   EdgeType = "REFERENCES"    // record → every record it refers to
	Annotates    EdgeType = "ANNOTATES"     // layer → expression
	UsesOntology EdgeType = "USES_ONTOLOGY" // record → ontology
	ByPersona    EdgeType = "BY_PERSONA"    // record → persona
	KnowledgeRef EdgeType = "KNOWLEDGE_REF" // record → entry of a knowledge base
	SubtypeOf    EdgeType = "SUBTYPE_OF"    // type → its parent type
	MemberOf     EdgeType = "MEMBER_OF"     // member → whole
	Aligns       EdgeType = "ALIGNS"        // source → target
	GraphEdge    EdgeType = "GRAPH_EDGE"    // source → target
	LinksEprint  EdgeType = "LINKS_EPRINT"  // record → eprint
)

// EdgeTypes are all of them, in the order in which neighbours are listed.
var EdgeTypes = slices.Sorted(slices.Values([]EdgeType{
	ParentOf, References, Annotates, UsesOntology, ByPersona, KnowledgeRef, SubtypeOf, MemberOf, Aligns, GraphEdge, LinksEprint,
}))

// Kind is what a node stands for.
type Kind string

// The kinds of nodes.
const (
	Record    Kind = "record"    // has URI, an AT-URI with a DID
	Knowledge Kind = "knowledge" // has Source and Identifier
	External  Kind = "external"  // has URI: a DID, a web address, an AT-URI of something else
)

// ID names a node. Two are the same node if they are equal.
type ID struct {
	Kind       Kind
	URI        string
	Source     string // the knowledge base, such as wikidata
	Identifier string // in it, such as Q42
}

// Of is the node of a URI of any kind.
func Of(uri string) ID {
	if strings.HasPrefix(uri, "at://did:") && strings.Count(uri, "/") == 4 && !strings.HasSuffix(uri, "/") {
		return ID{Kind: Record, URI: uri}
	}
	return ID{Kind: External, URI: uri}
}

// OfRecord is the node of a record.
func OfRecord(key record.Key) ID { return ID{Kind: Record, URI: key.String()} }

// OfKnowledge is the node of an entry in a knowledge base.
func OfKnowledge(source, identifier string) ID {
	return ID{Kind: Knowledge, Source: source, Identifier: identifier}
}

// Name is what the node is called: its URI, or the JSON array of source and
// identifier. No two nodes have the same.
func (id ID) Name() string {
	if id.Kind != Knowledge {
		return id.URI
	}
	pair, _ := json.Marshal([2]string{id.Source, id.Identifier}) // strings always encode
	return string(pair)
}

// Named is the node with a name.
func Named(name string) ID {
	var pair [2]string
	if strings.HasPrefix(name, "[") && json.Unmarshal([]byte(name), &pair) == nil {
		return OfKnowledge(pair[0], pair[1])
	}
	return Of(name)
}

// DID is the account whose record the node is; empty for other kinds.
func (id ID) DID() syntax.DID {
	if id.Kind != Record {
		return ""
	}
	return repoOf(id.URI)
}

// repoOf is the authority of an AT-URI.
func repoOf(uri string) syntax.DID {
	did, _, _ := strings.Cut(strings.TrimPrefix(uri, "at://"), "/")
	return syntax.DID(did)
}

// Collection is the collection of a record's node; empty for other kinds.
func (id ID) Collection() syntax.NSID {
	if id.Kind != Record {
		return ""
	}
	return syntax.NSID(strings.Split(id.URI, "/")[3])
}

// Node is a node as an answer shows it.
type Node struct {
	ID
	Label    string // what it is called, where its record or a reference says so
	Dangling bool   // a record that is referred to but not there, or not to be seen
	Depth    int    // hops from where the question began; negative against the edges' direction in a hierarchy
}

// Edge is an edge as an answer shows it.
type Edge struct {
	Type       EdgeType
	From, To   ID
	Properties map[string]any // string, bool, int64, float64 or []any, such as edge_type, confidence, ordinal, path
	Stated     string         // AT-URI of the record that states it

	// Place is the store's own number of the edge: different for each, and the same for
	// as long as the record that states it is not written again.
	Place int64
}

// LabelProperties name a record for a reader; the first that a record has wins.
var LabelProperties = []string{"name", "title", "label", "form", "summary", "gloss", "id", "eprintIdentifier"}

// Label is what a record with these properties is called; empty if nothing says so.
func Label(properties map[string]any) string {
	for _, name := range LabelProperties {
		if label, ok := properties[name].(string); ok && label != "" {
			return label
		}
	}
	return ""
}

// Direction is the way in which edges are followed.
type Direction string

// The directions, as seen from the node that is asked about.
const (
	Out  Direction = "out"
	In   Direction = "in"
	Both Direction = "both"
)

func (d Direction) reversed() Direction {
	switch d {
	case Out:
		return In
	case In:
		return Out
	}
	return d
}

// Filter says which edges are followed. The zero value follows all.
type Filter struct {
	Direction  Direction   // default Both
	Types      []EdgeType  // default all
	Collection syntax.NSID // of the records at the far end; default any node
}
