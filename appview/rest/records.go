package rest

import (
	"errors"
	"net/http"
	"slices"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Bounds of a page of records.
const (
	mostRecords     = 100
	standardRecords = 50
)

// recordRoutes are the list and the get of every record type.
func (s *Service) recordRoutes() []Route {
	var rows []Route
	for _, t := range s.types {
		rows = append(rows, s.listRoute(t), s.getRoute(t))
	}
	return rows
}

func (s *Service) listRoute(t *recordType) Route {
	params := append(t.filters(), Limit(mostRecords, standardRecords), Cursor())
	return Route{
		Path: "/" + t.name, ID: "list." + t.name, Tag: t.name, collection: t.collection.NSID,
		Summary:     "List " + t.name + ", newest first",
		Description: t.collection.Description,
		Params:      append(params, s.shapeParams()...),
		Answer: Answer{
			Description: "A page of records of the collection " + string(t.collection.NSID) + "; `cursor` is absent on the last.",
			Schema:      pageSchema(t), Example: t.examplePage(), Lines: lineSchema(),
		},
		Handler: s.list(t),
	}
}

func (s *Service) getRoute(t *recordType) Route {
	return Route{
		Path: "/" + t.name + "/{uri}", ID: "get." + t.name, Tag: t.name,
		Summary:     "One record of " + t.name,
		Description: t.collection.Description,
		Params:      append([]Param{t.uri()}, s.shapeParams()...),
		Answer: Answer{
			Description: "The record. Its `Etag` is its CID, so that `If-None-Match` is answered with 304 while it has not changed.",
			Schema:      recordSchema(t), Example: t.exampleRecord(),
		},
		Handler: s.get(t),
	}
}

// uri is the path parameter that names a record of the type.
func (t *recordType) uri() Param {
	p := URI("The record, of the collection " + string(t.collection.NSID) + ".")
	p.Example = exampleURI(t.collection.NSID)
	return p
}

// filters are the parameters that any list query of the type's lexicons has, none of
// them required: what leaves them all out lists all repositories.
func (t *recordType) filters() []Param {
	repo := Formatted("repo", "at-identifier", "Only records of this repository, by DID or handle.", "did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	repo.Repo = true
	params := []Param{repo}
	for _, q := range t.lists {
		for _, p := range q.Params {
			if p.Filter == "" || slices.ContainsFunc(params, func(other Param) bool { return other.Name == p.Name }) {
				continue
			}
			p.Required, p.Default = false, nil
			params = append(params, Param{Param: p, Example: exampleOf(p)})
		}
	}
	return params
}

// exampleOf is a value that a lexicon's parameter takes.
func exampleOf(p catalog.Param) string {
	switch {
	case len(p.Enum) > 0:
		return p.Enum[0]
	case len(p.KnownValues) > 0:
		return p.KnownValues[0]
	case p.Type == catalog.Boolean:
		return "true"
	case p.Type == catalog.Integer:
		return "1"
	}
	return exampleText(p.Format)
}

// list answers a page of records, or streams them all.
func (s *Service) list(t *recordType) Handler {
	return func(c *Call) error {
		shape, err := t.shape(c)
		if err != nil {
			return err
		}
		list, err := s.xrpc.Listing(c.Ctx(), c.Arguments)
		if err != nil {
			return err
		}
		if c.route.Stream || wantsLines(c.Context) {
			return s.streamList(c, list, shape)
		}
		records, cursor, err := list.Page(c.Ctx())
		if err != nil {
			return err
		}
		answer := page{Records: make([]view, 0, len(records)), Cursor: cursor}
		for _, r := range records {
			v, err := shape.view(r)
			if err != nil {
				return err
			}
			answer.Records = append(answer.Records, v)
		}
		if answer.Included, err = s.include(c, shape, records); err != nil {
			return err
		}
		return c.Answer(answer)
	}
}

// get answers one record.
func (s *Service) get(t *recordType) Handler {
	return func(c *Call) error {
		shape, err := t.shape(c)
		if err != nil {
			return err
		}
		found, err := s.find(c, t)
		if err != nil {
			return err
		}
		// The CID stands for the whole answer unless it shows other records too, or a
		// handle in the path, which may pass to another repository.
		text, _ := c.Text("uri")
		if len(shape.expand) == 0 && text == found.Key.String() && xrpc.Unchanged(c.Context, found.CID) {
			return c.NoContent(http.StatusNotModified)
		}
		v, err := shape.view(found)
		if err != nil {
			return err
		}
		included, err := s.include(c, shape, []record.Record{found})
		if err != nil {
			return err
		}
		return c.Answer(one{view: v, Included: included})
	}
}

// find reads the record that the path names, which has to be of the type.
func (s *Service) find(c *Call, t *recordType) (record.Record, error) {
	key, err := s.Key(c, "uri")
	if err != nil {
		return record.Record{}, err
	}
	if key.Collection != t.collection.NSID {
		return record.Record{}, xrpc.InvalidRequest("path parameter %q: expected a record of the collection %s, got one of %s", "uri", t.collection.NSID, xrpc.Quote(string(key.Collection)))
	}
	found, err := s.reads.Get(c.Ctx(), key)
	if errors.Is(err, store.ErrNotFound) {
		return record.Record{}, NotFound(key)
	}
	return found, err
}
