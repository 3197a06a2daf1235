// Package rest serves the index to web clients, under /api/v1.
//
// One table of [Route] says everything about the interface: path, parameters with
// types, bounds and descriptions, the shape of the answer, and the handler. The
// routes are mounted from it (mount.go) and the OpenAPI document is written from it
// (openapi.go), so that neither can say what the other does not. Whoever adds an
// endpoint adds a row.
//
// The rows of the record types come from the catalog (records.go): a new record type
// has its list and its get as soon as its lexicon is loaded.
package rest

import (
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Prefix is where the table's paths begin.
const Prefix = "/api/v1"

// reader is what is asked of the store; *store.Reader has it.
type reader interface {
	Get(context.Context, record.Key) (record.Record, error)
	List(context.Context, store.Query) (store.Page, error)
	LoadAll(context.Context, []record.Key) (map[record.Key]record.Record, error)
	There(context.Context, []record.Key) (map[record.Key]bool, error)
	References(context.Context, store.ReferenceQuery) ([]store.Reference, bool, error)
	Targets(ctx context.Context, sources []record.Key, paths []string, limit int) ([]store.Reference, error)
	AnnotationsOf(context.Context, store.AnnotationQuery) ([]store.FoundAnnotation, bool, error)
	Referring(ctx context.Context, targets []string, collections []syntax.NSID, after record.Key, limit int) ([]record.Key, error)
	InLanguages(ctx context.Context, uris, tags []string) ([]string, error)
	Joined(ctx context.Context, collection syntax.NSID, path string, target syntax.ATURI, other string, limit int) ([]string, error)
	ReferrersByCollection(ctx context.Context, target string, collections []syntax.NSID, limit int) ([]store.Group, error)
}

// Deps are what the service answers from.
type Deps struct {
	Catalog *catalog.Catalog
	Reads   reader
	// XRPC lists records and resolves handles; both interfaces answer alike.
	XRPC    *xrpc.Service
	Search  Search // without a schema there is none
	Graph   Graph
	Stats   counter       // nil for an interface without it
	Cache   *cache.Cache  // nil to answer every request by itself
	Live    *live.Service // nil for an interface without events
	Version string        // of the program, for the OpenAPI document
}

// Service answers the table's requests.
type Service struct {
	catalog *catalog.Catalog
	reads   reader
	xrpc    *xrpc.Service
	search  Search
	graph   Graph
	stats   counter
	cache   *cache.Cache
	live    *live.Service
	version string
	types   []*recordType // sorted by name
	routes  []Route
	streams map[string]bool          // patterns of routes that stream
	groups  map[string]traffic.Group // by pattern
	slots   chan struct{}            // one for each stream that may be under way
}

// New makes a service. It panics where rows of the table contradict each other.
func New(deps Deps) *Service {
	s := &Service{catalog: deps.Catalog, reads: deps.Reads, xrpc: deps.XRPC, search: deps.Search, graph: deps.Graph, stats: deps.Stats, cache: deps.Cache, live: deps.Live, version: deps.Version}
	s.types = recordTypes(deps.Catalog)
	s.routes = prepared(s.table())
	s.streams, s.groups, s.slots = map[string]bool{}, map[string]traffic.Group{}, make(chan struct{}, mostStreams)
	for i := range s.routes {
		s.groups[s.routes[i].Pattern()] = s.routes[i].Group
		if s.routes[i].Stream {
			s.streams[s.routes[i].Pattern()] = true
		}
	}
	return s
}

// table is every route there is under [Prefix].
func (s *Service) table() []Route {
	var all []Route
	for _, rows := range [][]Route{
		s.recordRoutes(),
		s.referenceRoutes(),
		s.compositeRoutes(),
		s.graphRoutes(),
		s.exportRoutes(),
		s.searchRoutes(),
		s.eventRoutes(),
		s.statsRoutes(),
	} {
		all = append(all, rows...)
	}
	return all
}

// Routes is the table. Read it only.
func (s *Service) Routes() []Route { return s.routes }

// Group is what a request is limited with; [traffic.Open] for paths that the table
// does not have.
func (s *Service) Group(c echo.Context) traffic.Group {
	if s.Streams(c) {
		return traffic.Streams
	}
	return s.groups[c.Path()]
}

// typeOf finds the record type of a collection; nil for a foreign one.
func (s *Service) typeOf(collection syntax.NSID) *recordType {
	for _, t := range s.types {
		if t.collection.NSID == collection {
			return t
		}
	}
	return nil
}
