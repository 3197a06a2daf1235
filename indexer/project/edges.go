package project

import (
	"maps"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
)

// edges gathers the edges of one record along its schema.
type edges struct {
	self      graph.Node
	namespace string
	path      []byte // to the value at hand, with [] for array elements
	list      []graph.Edge
	seen      map[string]struct{} // references, and edges without properties of their own
}

// value follows the schema; what it does not describe is not looked at.
func (e *edges) value(s *catalog.Schema, name string, v any) {
	switch v := v.(type) {
	case string:
		if s.Type == catalog.String && s.Format == "at-uri" {
			e.reference(name, v)
		}
	case []any:
		if s.Type == catalog.Array {
			e.elements(s.Items, name, v)
		}
	case map[string]any:
		if s.Def == defKnowledgeRef {
			e.knowledge(v)
		}
		switch s.Type {
		case catalog.Object:
			e.object(s, v)
		case catalog.Union:
			e.union(s, name, v)
		}
	}
}

func (e *edges) object(s *catalog.Schema, value map[string]any) {
	depth := len(e.path)
	for _, p := range s.Properties {
		if v, ok := value[p.Name]; ok {
			e.enter(p.Name)
			e.value(p.Schema, p.Name, v)
			e.path = e.path[:depth]
		}
	}
}

func (e *edges) elements(s *catalog.Schema, name string, values []any) {
	depth := len(e.path)
	e.path = append(e.path, "[]"...)
	for _, v := range values {
		e.value(s, name, v)
	}
	e.path = e.path[:depth]
}

func (e *edges) union(s *catalog.Schema, name string, value map[string]any) {
	typeName, _ := value["$type"].(string)
	typeName = strings.TrimSuffix(typeName, "#main")
	for _, variant := range s.Variants {
		if variant.Def == typeName {
			e.value(variant, name, value)
		}
	}
}

func (e *edges) enter(name string) {
	if len(e.path) > 0 {
		e.path = append(e.path, '.')
	}
	e.path = append(e.path, name...)
}

// loose finds the references of a value without a schema: every string that is
// an AT-URI with a collection.
func (e *edges) loose(name string, v any) {
	depth := len(e.path)
	switch v := v.(type) {
	case string:
		if !strings.HasPrefix(v, "at://") {
			return
		}
		if uri, err := syntax.ParseATURI(v); err == nil && uri.Collection() != "" {
			e.reference(name, v)
		}
	case []any:
		e.path = append(e.path, "[]"...)
		for _, v := range v {
			e.loose(name, v)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			e.enter(name)
			e.loose(name, v[name])
			e.path = e.path[:depth]
		}
	}
	e.path = e.path[:depth]
}

// reference adds a REFERENCES edge, and the edge that the property's name stands for.
func (e *edges) reference(name, uri string) {
	path := string(e.path)
	if !e.first(string(graph.References), path, uri) {
		return
	}
	target := graph.Referred(syntax.ATURI(uri))
	e.list = append(e.list, graph.Edge{
		Type: graph.References, From: e.self, To: target,
		Properties: map[string]any{"path": path},
	})
	top := path == name
	switch {
	case name == "parentTypeRef":
		e.plain(graph.SubtypeOf, e.self, target)
	case top && strings.HasPrefix(name, "parent") && strings.HasSuffix(name, "Ref"):
		e.plain(graph.ParentOf, target, e.self)
	case top && name == "expression" && e.namespace == "annotation":
		e.plain(graph.Annotates, e.self, target)
	case name == "ontologyRef", name == "ontologyRefs":
		e.plain(graph.UsesOntology, e.self, target)
	case name == "personaRef":
		e.plain(graph.ByPersona, e.self, target)
	case name == "eprintUri", name == "eprintRefs":
		e.plain(graph.LinksEprint, e.self, target)
	}
}

// knowledge adds a KNOWLEDGE_REF edge, one for each place and entry: whether the
// record itself is meant, its author or one of its annotations, the path tells.
func (e *edges) knowledge(ref map[string]any) {
	source, _ := ref["source"].(string)
	identifier, _ := ref["identifier"].(string)
	path := string(e.path)
	if !e.first(string(graph.KnowledgeRef), path, source, identifier) {
		return
	}
	props := map[string]any{"path": path}
	for _, name := range []string{"label", "uri"} {
		if s, ok := ref[name].(string); ok {
			props[name] = cut(s, maxProperty)
		}
	}
	e.list = append(e.list, graph.Edge{
		Type: graph.KnowledgeRef, From: e.self, To: graph.Knowledge(source, identifier), Properties: props,
	})
}

// plain adds an edge without properties, once.
func (e *edges) plain(edge graph.EdgeType, from, to graph.Node) {
	if e.first(string(edge), from.URI, to.URI) {
		e.list = append(e.list, graph.Edge{Type: edge, From: from, To: to})
	}
}

// first reports whether these words have not come together before.
func (e *edges) first(words ...string) bool {
	key := strings.Join(words, "\x00")
	if _, ok := e.seen[key]; ok {
		return false
	}
	e.seen[key] = struct{}{}
	return true
}

// member adds the MEMBER_OF edge of a membership record.
func (e *edges) member(m membership, props map[string]any, value map[string]any) {
	member, _ := value[m.member].(string)
	whole, _ := value[m.whole].(string)
	if member == "" || whole == "" {
		return
	}
	e.list = append(e.list, graph.Edge{
		Type: graph.MemberOf, From: graph.Referred(syntax.ATURI(member)), To: graph.Referred(syntax.ATURI(whole)), Properties: props,
	})
}

// relation adds the edge that an object with a source and a target states, if
// both lead somewhere.
func (e *edges) relation(edge graph.EdgeType, props map[string]any, value map[string]any) {
	from, object := e.end(value["source"])
	if object != "" {
		props["source_object"] = object
	}
	to, object := e.end(value["target"])
	if object != "" {
		props["target_object"] = object
	}
	if from.Kind != "" && to.Kind != "" {
		e.list = append(e.list, graph.Edge{Type: edge, From: from, To: to, Properties: props})
	}
}

// end is the node that a pub.layers.defs#objectRef leads to, and the identifier
// of the object in that record that it means; no node if it leads nowhere.
func (e *edges) end(v any) (node graph.Node, object string) {
	ref, _ := v.(map[string]any)
	if uri, ok := ref["recordRef"].(string); ok {
		return graph.Referred(syntax.ATURI(uri)), uuidOf(ref["objectId"])
	}
	if k, ok := ref["knowledgeRef"].(map[string]any); ok {
		source, _ := k["source"].(string)
		identifier, _ := k["identifier"].(string)
		return graph.Knowledge(source, identifier), ""
	}
	if id := uuidOf(ref["localId"]); id != "" {
		return e.self, id
	}
	return graph.Node{}, ""
}

func uuidOf(v any) string {
	id, _ := v.(map[string]any)
	s, _ := id["value"].(string)
	return s
}

// relates reports whether objects of this shape state an edge by themselves.
func (s *shape) relates() bool {
	if s.kind != object {
		return false
	}
	source, target := s.prop("source"), s.prop("target")
	return source != nil && target != nil && source.def == defObjectRef && target.def == defObjectRef
}

// edgeProperties are the short properties of an object as an edge has them, in
// snake case.
func edgeProperties(s *shape, value map[string]any) map[string]any {
	out := map[string]any{}
	for _, p := range s.props {
		v := propertyOf(p.shape, value[p.name])
		if p.def == defUUID {
			if id := uuidOf(value[p.name]); id != "" {
				v = id
			}
		}
		if v != nil {
			out[catalog.Separated(p.name, '_')] = v
		}
	}
	return out
}

func edgesOf(c *catalog.Collection, rec record.Record) *edges {
	return &edges{self: graph.Record(rec.Key), namespace: c.Namespace, seen: map[string]struct{}{}}
}
