package rest

import (
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// A composite is a record with what is around it, in one answer and in a number of
// questions to the store that does not grow with it: the record; what it refers to;
// the first records of each type that refer to it; what those refer to; and the
// values of all that.

const (
	mostOfType     = 100 // records of one type that refer to a composite's
	standardOfType = 20
	mostReferences = 1000 // of the composite's record
)

// full is the answer of /{type}/{uri}/full.
type full struct {
	view
	References []forward             `json:"references"`
	ReferredBy map[string]group      `json:"referredBy"`
	Included   map[syntax.ATURI]view `json:"included"`
	Truncated  bool                  `json:"truncated"`
}

// forward is a reference of the composite's own record.
type forward struct {
	Path       string `json:"path"`
	Target     string `json:"target"`
	Kind       string `json:"kind"`
	State      string `json:"state"`
	TargetType string `json:"targetType,omitempty"`
}

// group are the records of one type that refer to the composite's.
type group struct {
	Records []referrer `json:"records"`
	More    bool       `json:"more"`
}

type referrer struct {
	view
	Paths []string `json:"paths"`
}

func (s *Service) compositeRoutes() []Route {
	var rows []Route
	for _, t := range s.types {
		rows = append(rows, s.fullRoute(t))
	}
	return append(rows, s.memberRoutes()...)
}

func (s *Service) fullRoute(t *recordType) Route {
	return Route{
		Path: "/" + t.name + "/{uri}/full", ID: "full." + t.name, Tag: t.name, Group: traffic.References,
		Summary: "One record of " + t.name + " with everything around it",
		Description: "The record, what it refers to, the records of each type that refer to it (`referredBy`, sorted by repository and record key), and, under `included`, the values of what any of these refer to. " +
			"A group with `more` goes on at `/references`.",
		Params: []Param{t.uri(), Number("limit", "How many records of each type that refer to it.", 1, mostOfType, standardOfType)},
		Answer: Answer{
			Description: "The record and its surroundings.",
			Schema:      fullSchema(t), Example: t.exampleFull(),
		},
		Handler: s.full(t),
		Cache:   Cache{For: keepReferences},
	}
}

func fullSchema(t *recordType) Schema {
	return Object(map[string]Schema{
		"uri": uriSchema("The record."), "cid": String("Of the record as it is in its repository."), "value": typeSchema(t.collection.Schema),
		"references": List(Named("Forward", Object(map[string]Schema{
			"path": String("Where the record refers, with [] for any element."), "target": String("What it refers to."),
			"kind": {"type": "string", "enum": []string{kindRecord, kindDID, kindURI}}, "state": stateSchema(), "targetType?": String("The target's type."),
		}))),
		"referredBy": Map(Named("Referrers", Object(map[string]Schema{
			"records": List(Object(map[string]Schema{
				"uri": uriSchema("The record that refers."), "cid": String("Of the record as it is in its repository."),
				"value": {"type": "object", "description": "The record, as its lexicon has it."}, "paths": List(String("Where it refers.")),
			})),
			"more": Boolean("Whether there are more of the type than `limit`."),
		}))),
		"included":  includedSchema(),
		"truncated": Boolean("Whether something that is referred to was left out of `references` or `included`, because there is so much."),
	})
}

func (t *recordType) exampleFull() any {
	r := t.exampleRecord().(map[string]any)
	r["references"], r["referredBy"], r["included"], r["truncated"] = []any{}, map[string]any{}, map[string]any{}, false
	return r
}

// full answers a composite.
func (s *Service) full(t *recordType) Handler {
	return func(c *Call) error {
		found, err := s.find(c, t)
		if err != nil {
			return err
		}
		own, err := s.reads.Targets(c.Ctx(), []record.Key{found.Key}, nil, mostReferences+1)
		if err != nil {
			return err
		}
		groups, err := s.reads.ReferrersByCollection(c.Ctx(), found.Key.String(), s.collections(), c.Limit())
		if err != nil {
			return err
		}
		around, err := s.around(c, own, groups)
		if err != nil {
			return err
		}
		answer := full{view: viewOf(found), ReferredBy: map[string]group{}, Truncated: around.truncated}
		if len(own) > mostReferences {
			own, answer.Truncated = own[:mostReferences], true
		}
		if answer.References, err = s.forwards(c, own); err != nil {
			return err
		}
		for _, g := range groups {
			answer.ReferredBy[s.nameOf(g.Collection)] = around.take(g)
		}
		answer.Included = around.views
		return c.Answer(answer)
	}
}

func (s *Service) collections() (all []syntax.NSID) {
	for _, t := range s.types {
		all = append(all, t.collection.NSID)
	}
	return all
}

// surroundings are the records around a composite's.
type surroundings struct {
	views     map[syntax.ATURI]view
	truncated bool
}

// around reads the records that refer, what they refer to in turn, and what the
// composite's own record refers to.
func (s *Service) around(c *Call, own []store.Reference, groups []store.Group) (surroundings, error) {
	var sources []record.Key
	for _, g := range groups {
		sources = append(sources, g.Sources...)
	}
	var theirs []store.Reference
	if len(sources) > 0 {
		var err error
		if theirs, err = s.reads.Targets(c.Ctx(), sources, nil, 20*mostIncluded+1); err != nil {
			return surroundings{}, err
		}
	}
	all := surroundings{truncated: len(theirs) > 20*mostIncluded}
	targets := slices.DeleteFunc(keysOf(slices.Concat(own, theirs)), func(k record.Key) bool { return slices.Contains(sources, k) })
	if len(targets) > mostIncluded {
		targets, all.truncated = targets[:mostIncluded], true
	}
	var err error
	all.views, err = s.views(c.Ctx(), slices.Concat(sources, targets))
	return all, err
}

// take moves the records of a group out of the surroundings. One that has gone since
// the group was read is left out.
func (a *surroundings) take(g store.Group) group {
	taken := group{Records: []referrer{}, More: g.More}
	for i, key := range g.Sources {
		v, ok := a.views[key.URI()]
		if !ok {
			continue
		}
		delete(a.views, key.URI())
		taken.Records = append(taken.Records, referrer{view: v, Paths: g.Paths[i]})
	}
	return taken
}

func (s *Service) forwards(c *Call, own []store.Reference) ([]forward, error) {
	there, err := s.reads.There(c.Ctx(), keysOf(own))
	if err != nil {
		return nil, err
	}
	all := make([]forward, 0, len(own))
	for _, r := range own {
		f := forward{Path: r.Path, Target: r.Target}
		f.Kind, f.State, f.TargetType = s.stateOf(r.Target, there)
		all = append(all, f)
	}
	return all, nil
}
