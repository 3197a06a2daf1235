package rest

import (
	"context"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// What a target is, and whether it is here.
const (
	kindRecord = "record"
	kindDID    = "did"
	kindURI    = "uri"

	statePresent = "present"
	// stateDangling is a record of a collection that is indexed, and that is not here:
	// deleted, not seen yet, or of an inactive account.
	stateDangling = "dangling"
	// stateOutside is what no index of records could hold: another collection, a DID, a web page.
	stateOutside = "outside"
)

// reference is one in an answer.
type reference struct {
	Source syntax.ATURI `json:"source"`
	Type   string       `json:"type"` // of the source
	Path   string       `json:"path"`
	Target string       `json:"target"`
	Kind   string       `json:"kind"`
	State  string       `json:"state"`
	// TargetType is empty where the target is no record of a type with a lexicon.
	TargetType string `json:"targetType,omitempty"`
}

type references struct {
	Target     target      `json:"target"`
	References []reference `json:"references"`
	Cursor     string      `json:"cursor,omitempty"`
}

type target struct {
	Target string `json:"target"`
	Kind   string `json:"kind"`
	State  string `json:"state"`
	Type   string `json:"type,omitempty"`
}

func (s *Service) referenceRoutes() []Route {
	most := 8192
	named := Text("target", "An AT-URI, a DID or a web address, exactly as records name it. The repository of an AT-URI may be given by handle.", exampleURI("pub.layers.expression.expression"))
	named.MaxLength = &most
	refType := Choice("ref_type", "Only where the record at the other end is of this type: the one that refers, or with direction=forward the one referred to.", s.typeNames()...)
	refType.Default, refType.Example = nil, "annotation-layers"
	after, long := Cursor(), 32<<10 // it has a target of up to 8 KiB in it
	after.MaxLength = &long
	return []Route{{
		Path: "/references", ID: "references", Tag: "references",
		Summary: "What refers to a record, a DID or a web address, or what a record refers to",
		Description: "With direction=back, every record in the index that names the target, with the path at which it does; with direction=forward, everything that the record `target` names. " +
			"`state` tells a target that is here (present) from a record of an indexed collection that is not (dangling) and from what is outside of the index. " +
			"Backward, references are sorted by source; forward, by path.",
		Params: []Param{
			Required(named), refType,
			Choice("direction", "Which way to look.", "back", "forward"),
			Text("path", "Only references at this path of the value that has them, with [] for any element of an array.", "expression"),
			Limit(mostRecords, standardRecords), after,
		},
		Answer:  Answer{Description: "A page of references.", Schema: referencesSchema(), Example: exampleReferences()},
		Handler: s.references,
		Cache:   Cache{For: keepReferences},
	}}
}

func (s *Service) typeNames() (names []string) {
	for _, t := range s.types {
		names = append(names, t.name)
	}
	return names
}

func referenceSchema() Schema {
	return Named("Reference", Object(map[string]Schema{
		"source": uriSchema("The record that refers."), "type": String("The source's type."),
		"path":        String("Where in the source's value, with [] for any element."),
		"target":      String("What is referred to, as the source has it."),
		"kind":        {"type": "string", "enum": []string{kindRecord, kindDID, kindURI}},
		"state":       stateSchema(),
		"targetType?": String("The target's type."),
	}))
}

func stateSchema() Schema {
	return Schema{"type": "string", "enum": []string{statePresent, stateDangling, stateOutside}, "description": "Whether the target is in the index; dangling is what could be and is not."}
}

func referencesSchema() Schema {
	return Object(map[string]Schema{
		"target": Object(map[string]Schema{
			"target": String("What was asked for, with a DID in place of a handle."), "kind": {"type": "string", "enum": []string{kindRecord, kindDID, kindURI}},
			"state": stateSchema(), "type?": String("Its type."),
		}),
		"references": List(referenceSchema()), "cursor?": cursorSchema(),
	})
}

func exampleReferences() any {
	expression, layer := exampleURI("pub.layers.expression.expression"), exampleURI("pub.layers.annotation.annotationLayer")
	return references{
		Target:     target{Target: expression, Kind: kindRecord, State: statePresent, Type: "expressions"},
		References: []reference{{Source: syntax.ATURI(layer), Type: "annotation-layers", Path: "expression", Target: expression, Kind: kindRecord, State: statePresent, TargetType: "expressions"}},
	}
}

// references answers /references.
func (s *Service) references(c *Call) error {
	text, _ := c.Text("target")
	names, err := s.xrpc.Names(c.Ctx(), "target", text)
	if err != nil {
		return err
	}
	query := store.ReferenceQuery{Limit: c.Limit(), Targets: names}
	if c.Word("direction") == "forward" {
		key, ok := recordAt(names[0])
		if !ok {
			return xrpc.InvalidRequest("parameter %q: with direction=forward, expected the AT-URI of one record, got %s", "target", xrpc.Quote(names[0]))
		}
		query.Targets, query.Source = nil, &key
	}
	if name, ok := c.Text("ref_type"); ok {
		query.Collection = s.collectionNamed(name)
	}
	query.Path, _ = c.Text("path")
	scope := []string{"references", names[0], c.Word("direction"), string(query.Collection), query.Path}
	if query.After, err = c.referenceAfter(scope); err != nil {
		return err
	}
	found, more, err := s.reads.References(c.Ctx(), query)
	if err != nil {
		return err
	}
	answer := references{References: []reference{}}
	if answer.Target, answer.References, err = s.told(c.Ctx(), names[0], found); err != nil {
		return err
	}
	if query.Source != nil && answer.Target.State != statePresent {
		return NotFound(*query.Source)
	}
	if more {
		last := found[len(found)-1]
		answer.Cursor = encodeToken(scope, last.Source.String(), last.Path, last.Target)
	}
	return c.Answer(answer)
}

func (s *Service) collectionNamed(name string) syntax.NSID {
	i := slices.IndexFunc(s.types, func(t *recordType) bool { return t.name == name })
	return s.types[i].collection.NSID // the parameter takes no other names
}

// told says of references, and of what was asked for, what the index knows of their
// targets; one question to the store.
func (s *Service) told(ctx context.Context, asked string, found []store.Reference) (target, []reference, error) {
	keys := keysOf(append([]store.Reference{{Target: asked}}, found...))
	there, err := s.reads.There(ctx, keys)
	if err != nil {
		return target{}, nil, err
	}
	one := target{Target: asked}
	one.Kind, one.State, one.Type = s.stateOf(asked, there)
	all := make([]reference, 0, len(found))
	for _, f := range found {
		r := reference{Source: f.Source.URI(), Type: s.nameOf(f.Source.Collection), Path: f.Path, Target: f.Target}
		r.Kind, r.State, r.TargetType = s.stateOf(f.Target, there)
		all = append(all, r)
	}
	return one, all, nil
}

func (s *Service) stateOf(named string, there map[record.Key]bool) (kind, state, name string) {
	switch {
	case strings.HasPrefix(named, "did:"):
		return kindDID, stateOutside, ""
	case !strings.HasPrefix(named, "at://"):
		return kindURI, stateOutside, ""
	}
	key, ok := recordAt(named)
	switch _, followed := s.catalog.Collection(key.Collection); {
	case !ok || !followed:
		return kindRecord, stateOutside, ""
	case there[key]:
		return kindRecord, statePresent, s.nameOf(key.Collection)
	}
	return kindRecord, stateDangling, s.nameOf(key.Collection)
}

// nameOf is the name of a collection's type, and its NSID where it has no lexicon.
func (s *Service) nameOf(collection syntax.NSID) string {
	if t := s.typeOf(collection); t != nil {
		return t.name
	}
	return string(collection)
}

// referenceAfter reads the cursor of a list of references.
func (c *Call) referenceAfter(scope []string) (*store.Reference, error) {
	parts, err := c.after(scope, 3)
	if parts == nil || err != nil {
		return nil, err
	}
	source, ok := recordAt(parts[0])
	if !ok || strings.Contains(parts[0]+parts[1]+parts[2], "\x00") {
		return nil, errToken
	}
	return &store.Reference{Source: source, Path: parts[1], Target: parts[2]}, nil
}
