package rest

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// grapher answers questions about the graph; *traversal.Graph does.
type grapher interface {
	Neighbors(ctx context.Context, root traversal.ID, f traversal.Filter, p traversal.Page) (traversal.Neighbors, error)
	LinkedToEprint(ctx context.Context, eprint traversal.ID, p traversal.Page) (traversal.Neighbors, error)
	Grounded(ctx context.Context, source, identifier string, p traversal.Page) (traversal.Grounding, error)
	Neighborhood(ctx context.Context, root traversal.ID, f traversal.Filter, r traversal.Reach) (traversal.Part, error)
	Ancestors(ctx context.Context, expression traversal.ID, r traversal.Reach) (traversal.Part, error)
	Descendants(ctx context.Context, expression traversal.ID, r traversal.Reach) (traversal.Part, error)
	Types(ctx context.Context, typeDef traversal.ID, r traversal.Reach) (traversal.Part, error)
	OntologyTypes(ctx context.Context, ontology traversal.ID, collection syntax.NSID, r traversal.Reach) (traversal.Part, error)
	Path(ctx context.Context, from, to traversal.ID, f traversal.Filter, hops int) (traversal.Path, error)
}

// Graph is what the graph endpoints answer from.
type Graph struct {
	Questions grapher       // nil for an interface without a graph
	From      record.Target // the projection that is asked first
}

// Collections of the relations that have paths of their own.
const (
	expressionType = "pub.layers.expression.expression"
	typeDefType    = "pub.layers.ontology.typeDef"
	ontologyType   = "pub.layers.ontology.ontology"
	eprintType     = "pub.layers.eprint.eprint"
)

// graphRoutes are none where there is no graph.
func (s *Service) graphRoutes() []Route {
	if s.graph.Questions == nil {
		return nil
	}
	filters := []Param{
		Choice("direction", "Which edges to follow: both ways, or those out of the node, or into it.", "both", "out", "in"), edgeTypes(),
	}
	far := Formatted("type", "nsid", "Only edges whose far end is a record of this collection.", typeDefType)
	nodes := Number("limit", "How many nodes to answer with at most; `truncated` tells whether there are more.", 1, traversal.MaxNodes, traversal.DefaultNodes)
	limit := Limit(traversal.MaxNeighbors, traversal.DefaultNeighbors)
	rows := []Route{
		{
			Path: "/graph/nodes/{uri}/neighbors", ID: "graph.neighbors", Summary: "The edges of a node, with what is at their other ends",
			Description: "Sorted by edge type, then far end. A node is there once for each edge to it.",
			Params:      append([]Param{inPath(node("uri"))}, append(filters, far, limit, Cursor())...),
			Answer:      neighborsAnswer(), Handler: s.neighbors,
		},
		{
			Path: "/graph/nodes/{uri}/neighborhood", ID: "graph.neighborhood", Summary: "What is within some hops of a node",
			Params: append([]Param{inPath(node("uri")), Number("depth", "How many hops.", 1, traversal.MaxDepth, 1)}, append(filters, far, nodes)...),
			Answer: partAnswer(), Handler: s.neighborhood,
		},
		{
			Path: "/graph/path", ID: "graph.path", Summary: "A shortest way between two nodes",
			Description: "`found` is false where there is none of at most `max_hops`. No way leads through a record that is not in the index.",
			Params:      append([]Param{Required(node("from")), Required(node("to")), Number("max_hops", "Edges that the way may have.", 1, traversal.MaxHops, traversal.MaxHops)}, filters...),
			Answer:      pathAnswer(), Handler: s.path,
		},
		{
			Path: "/graph/grounded", ID: "graph.grounded", Summary: "Everything grounded to an entry of a knowledge base",
			Params: []Param{
				Required(Text("knowledge", "The entry's identifier, as its source writes it.", "Q1860")),
				Text("source", "The knowledge base; any that has the identifier, by itself.", "wikidata"), limit, Cursor(),
			},
			Answer: groundingAnswer(), Handler: s.grounded,
		},
	}
	for _, row := range []struct {
		collection               syntax.NSID
		segment, id, summary, of string
		ask                      func(context.Context, traversal.ID, traversal.Reach) (traversal.Part, error)
	}{
		{expressionType, "ancestors", "expressions.ancestors", "The expressions that one is part of", "`depth` counts the levels up.", s.graph.Questions.Ancestors},
		{expressionType, "descendants", "expressions.descendants", "The parts of an expression", "`depth` counts the levels down.", s.graph.Questions.Descendants},
		{typeDefType, "hierarchy", "types.hierarchy", "The hierarchy that a type stands in", "Types above it have a negative `depth`, those below it a positive one.", s.graph.Questions.Types},
		{ontologyType, "types", "ontologies.types", "The types of an ontology, with the hierarchy between them", "Its types have the `depth` 1; types of other ontologies above them a negative one.", s.ontologyTypes},
	} {
		t := s.typeOf(row.collection)
		if t == nil {
			continue
		}
		rows = append(rows, Route{
			Path: "/" + t.name + "/{uri}/" + row.segment, ID: row.id, Summary: row.summary, Description: row.of,
			Params: []Param{t.uri(), Number("depth", "How many levels.", 1, traversal.MaxLevels, traversal.MaxLevels), nodes},
			Answer: partAnswer(), Handler: s.levels(t, row.ask),
		})
	}
	if t := s.typeOf(eprintType); t != nil {
		rows = append(rows, Route{
			Path: "/" + t.name + "/{uri}/linked", ID: "eprints.linked", Summary: "The data that is linked to an eprint",
			Params: []Param{t.uri(), limit, Cursor()}, Answer: neighborsAnswer(), Handler: s.linked(t),
		})
	}
	for i := range rows {
		rows[i].Tag, rows[i].Cache = "graph", Cache{For: keepFound, From: s.graph.From}
	}
	return rows
}

const maxURI = 9000 // bytes

// node is a parameter that names a node.
func node(name string) Param {
	p := Text(name, "A node: the AT-URI of a record, a DID, a web address, or knowledge:source:identifier for an entry of a knowledge base. The repository of an AT-URI may be given by handle.",
		exampleURI("pub.layers.graph.graphNode"))
	most := maxURI
	p.MaxLength = &most
	return p
}

func inPath(p Param) Param { p.InPath = true; return Required(p) }

func edgeTypes() Param {
	var words []string
	for _, t := range traversal.EdgeTypes {
		words = append(words, string(t))
	}
	p := Repeated(Choice("edge_type", "Only edges of these types.", words...))
	p.Example = string(traversal.GraphEdge)
	return p
}

// node reads a parameter that names a node.
func (s *Service) node(c *Call, parameter string) (traversal.ID, error) {
	text, _ := c.Text(parameter)
	if rest, ok := strings.CutPrefix(text, knowledgePrefix); ok {
		source, identifier, ok := strings.Cut(rest, ":")
		if source, err := url.PathUnescape(source); ok && err == nil && source != "" && identifier != "" {
			return traversal.OfKnowledge(source, identifier), nil
		}
		return traversal.ID{}, xrpc.InvalidRequest("parameter %q: expected knowledge:source:identifier, got %s", parameter, xrpc.Quote(text))
	}
	if !strings.HasPrefix(text, "at://") {
		if u, err := url.Parse(text); err != nil || u.Scheme == "" {
			return traversal.ID{}, xrpc.InvalidRequest("parameter %q: expected an AT-URI, a DID, a web address or knowledge:source:identifier, got %s", parameter, xrpc.Quote(text))
		}
		return traversal.Of(text), nil
	}
	uri, err := syntax.ParseATURI(text)
	if err != nil {
		return traversal.ID{}, xrpc.InvalidRequest("parameter %q: %s is no AT-URI", parameter, xrpc.Quote(text))
	}
	repo, collection, rkey := xrpc.SplitURI(uri)
	if rkey == "" {
		return traversal.Of(text), nil
	}
	did, err := s.xrpc.DID(c.Ctx(), parameter, repo)
	return traversal.OfRecord(record.Key{DID: did, Collection: collection, Rkey: rkey}), err
}

const knowledgePrefix = "knowledge:"

// nameOf is a node as parameters and answers name it.
func nameOf(id traversal.ID) string {
	if id.Kind == traversal.Knowledge {
		return knowledgePrefix + strings.ReplaceAll(url.PathEscape(id.Source), ":", "%3A") + ":" + id.Identifier
	}
	return id.URI
}

// edgeFilter reads the parameters that say which edges to follow.
func edgeFilter(c *Call) traversal.Filter {
	f := traversal.Filter{Direction: traversal.Direction(c.Word("direction"))}
	for _, name := range c.Texts("edge_type") {
		f.Types = append(f.Types, traversal.EdgeType(name))
	}
	collection, _ := c.Text("type")
	f.Collection = syntax.NSID(collection)
	return f
}

func pageOf(c *Call) traversal.Page {
	cursor, _ := c.Text("cursor")
	limit, _ := c.Int("limit")
	return traversal.Page{Limit: limit, Cursor: cursor}
}

func reachOf(c *Call) traversal.Reach {
	depth, _ := c.Int("depth")
	limit, _ := c.Int("limit")
	return traversal.Reach{Depth: depth, Limit: limit}
}

// graphError says what a client can do about it.
func graphError(err error) error {
	var invalid *traversal.InvalidError
	var large *traversal.TooLargeError
	switch {
	case errors.As(err, &invalid):
		return xrpc.InvalidRequest("parameter %q: %s", invalid.Parameter, invalid.Message)
	case errors.As(err, &large):
		return TooLarge("%s", large.Error())
	case errors.Is(err, traversal.ErrUnavailable):
		return xrpc.Unavailable(err)
	}
	return err
}

func (s *Service) neighbors(c *Call) error {
	root, err := s.node(c, "uri")
	if err != nil {
		return err
	}
	found, err := s.graph.Questions.Neighbors(c.Ctx(), root, edgeFilter(c), pageOf(c))
	if err != nil {
		return graphError(err)
	}
	return c.Answer(neighborsView(found))
}

func (s *Service) linked(t *recordType) Handler {
	return func(c *Call) error {
		key, err := s.keyOf(c, t)
		if err != nil {
			return err
		}
		found, err := s.graph.Questions.LinkedToEprint(c.Ctx(), traversal.OfRecord(key), pageOf(c))
		if err != nil {
			return graphError(err)
		}
		return c.Answer(neighborsView(found))
	}
}

func (s *Service) neighborhood(c *Call) error {
	root, err := s.node(c, "uri")
	if err != nil {
		return err
	}
	found, err := s.graph.Questions.Neighborhood(c.Ctx(), root, edgeFilter(c), reachOf(c))
	if err != nil {
		return graphError(err)
	}
	return c.Answer(partView(found))
}

func (s *Service) levels(t *recordType, ask func(context.Context, traversal.ID, traversal.Reach) (traversal.Part, error)) Handler {
	return func(c *Call) error {
		key, err := s.keyOf(c, t)
		if err != nil {
			return err
		}
		found, err := ask(c.Ctx(), traversal.OfRecord(key), reachOf(c))
		if err != nil {
			return graphError(err)
		}
		return c.Answer(partView(found))
	}
}

func (s *Service) ontologyTypes(ctx context.Context, ontology traversal.ID, r traversal.Reach) (traversal.Part, error) {
	return s.graph.Questions.OntologyTypes(ctx, ontology, typeDefType, r)
}

// keyOf is the record that the path names, which has to be of a type.
func (s *Service) keyOf(c *Call, t *recordType) (record.Key, error) {
	key, err := s.Key(c, "uri")
	if err == nil && key.Collection != t.collection.NSID {
		err = xrpc.InvalidRequest("path parameter %q: expected a record of the collection %s, got one of %s", "uri", t.collection.NSID, xrpc.Quote(string(key.Collection)))
	}
	return key, err
}

func (s *Service) path(c *Call) error {
	from, err := s.node(c, "from")
	if err != nil {
		return err
	}
	to, err := s.node(c, "to")
	if err != nil {
		return err
	}
	hops, _ := c.Int("max_hops")
	found, err := s.graph.Questions.Path(c.Ctx(), from, to, edgeFilter(c), hops)
	if err != nil {
		return graphError(err)
	}
	return c.Answer(graphPath{Found: found.Found, Hops: found.Hops, Nodes: nodeViews(found.Nodes), Edges: edgeViews(found.Edges), caveats: caveats(found.Caveats)})
}

func (s *Service) grounded(c *Call) error {
	identifier, _ := c.Text("knowledge")
	source, _ := c.Text("source")
	found, err := s.graph.Questions.Grounded(c.Ctx(), source, identifier, pageOf(c))
	if err != nil {
		return graphError(err)
	}
	return c.Answer(grounding{Entries: nodeViews(found.Entries), Neighbors: neighborViews(found.Neighbors), Cursor: found.Cursor, caveats: caveats(found.Caveats)})
}
