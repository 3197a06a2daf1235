package project

import (
	"strings"
	"unicode"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// The shared definitions of pub.layers.* that projections know by name. A new
// record type that uses them is treated like the others; nothing here names a
// record type but the two tables of refinements below.
const (
	defFeature      = "pub.layers.defs#feature"      // {key, value}
	defFeatureMap   = "pub.layers.defs#featureMap"   // {entries: [feature]}
	defKnowledgeRef = "pub.layers.defs#knowledgeRef" // {source, identifier, ...}
	defObjectRef    = "pub.layers.defs#objectRef"    // {recordRef | localId | objectId | knowledgeRef}
	defUUID         = "pub.layers.defs#uuid"         // {value}
	defAnnotation   = "pub.layers.annotation.defs#annotation"
)

// notSearchable are collections that the rule of [plan.searchable] would pick
// and that the design leaves to PostgreSQL and Neo4j: their labels say
// something only beside the records that they connect or fill.
var notSearchable = map[syntax.NSID]bool{
	"pub.layers.resource.template": true,
	"pub.layers.resource.filling":  true,
	"pub.layers.graph.graphEdge":   true,
	"pub.layers.eprint.dataLink":   true,
}

// membership tells which two references of a membership record are the member
// and the whole.
type membership struct{ member, whole string }

var memberships = map[syntax.NSID]membership{
	"pub.layers.corpus.membership":             {member: "expressionRef", whole: "corpusRef"},
	"pub.layers.resource.collectionMembership": {member: "entryRef", whole: "collectionRef"},
}

// titleProperties name a record for a reader; the first that a record has wins.
var titleProperties = traversal.LabelProperties

// nodeLabel spells a collection's name or a known value as a node's label: the
// words' first letters capital, nothing but ASCII letters and digits, at most
// 64. "annotationLayer" gives "AnnotationLayer", "same-as" gives "SameAs"; a
// label that the graph has for itself gives none.
func nodeLabel(name string) string {
	var b strings.Builder
	up := true
	for _, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		switch {
		case b.Len() == 64:
		case letter && up:
			b.WriteRune(unicode.ToUpper(r))
			up = false
		case letter, '0' <= r && r <= '9' && b.Len() > 0:
			b.WriteRune(r)
		default:
			up = true
		}
	}
	switch label := b.String(); graph.NodeKind(label) {
	case graph.RecordNode, graph.KnowledgeNode, graph.ExternalNode:
		return ""
	default:
		return label
	}
}
