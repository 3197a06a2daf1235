// Package xrpc serves the queries that the lexicons declare, under /xrpc/{nsid}.
//
// One pair of handlers answers every get* and list* query: which parameters a
// query takes, what they filter on and how its answer is laid out come from the
// catalog, so a new record type is served as soon as its lexicon is loaded.
//
// The way of a request: the router picks the endpoint by its NSID; [endpoint.parse]
// checks the query string against the lexicon; handles in it are resolved to
// DIDs; the store is asked; the stored JSON text goes into the answer as it is.
package xrpc

import (
	"context"
	"net/http"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// reader is what is asked of the store; *store.Reader has it.
type reader interface {
	Get(context.Context, record.Key) (record.Record, error)
	List(context.Context, store.Query) (store.Page, error)
	ListForeign(context.Context, store.ForeignQuery) (store.Page, error)
	ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error)
}

// Service answers the catalog's queries from the store.
type Service struct {
	catalog *catalog.Catalog
	reads   reader
	handles *handles
}

// New makes a service. The resolver is asked for handles that the store does not
// know; nil leaves those unresolved.
func New(c *catalog.Catalog, reads reader, network Resolver) *Service {
	return &Service{catalog: c, reads: reads, handles: newHandles(reads, network)}
}

const prefix = "/xrpc/"

// CatchAll is the route of XRPC paths that no query has.
const CatchAll = prefix + ":nsid"

// Method is the NSID in a route that [Service.Mount] made for a query.
func Method(route string) (nsid string, ok bool) {
	nsid, ok = strings.CutPrefix(route, prefix)
	return nsid, ok && route != CatchAll && !strings.HasPrefix(nsid, "_")
}

// Answered are the queries that are answered, sorted. Read them only.
func (s *Service) Answered() []*catalog.Query {
	var all []*catalog.Query
	for _, q := range s.catalog.Queries() {
		if _, ok := s.handler(q); ok {
			all = append(all, q)
		}
	}
	return all
}

// Queries are the names of the queries that are answered, sorted.
func (s *Service) Queries() []syntax.NSID {
	var names []syntax.NSID
	for _, q := range s.Answered() {
		names = append(names, q.NSID)
	}
	return names
}

// Mount adds a route for every query of the catalog, and one that says of any
// other method that it is not implemented.
func (s *Service) Mount(e *echo.Echo) {
	for _, q := range s.catalog.Queries() {
		handler, _ := s.handler(q)
		e.GET(prefix+string(q.NSID), handler)
		e.HEAD(prefix+string(q.NSID), handler)
	}
	e.Any(CatchAll, s.refuse)
}

// handler picks what answers a query; ok is false for one that is only declined.
func (s *Service) handler(q *catalog.Query) (h echo.HandlerFunc, ok bool) {
	ep := NewEndpoint(q)
	switch {
	case q.NSID == getExternal:
		return s.getExternal(ep), true
	case q.NSID == listExternal:
		return s.listExternal(ep), true
	case q.Kind == catalog.Get:
		return s.get(ep), true
	case q.Kind == catalog.List:
		return s.list(ep), true
	}
	return declineHandler, false
}

func declineHandler(c echo.Context) error {
	nsid, _ := Method(c.Path())
	return methodNotImplemented("%s is not implemented here", nsid)
}

// refuse answers the XRPC paths that no route has: a method that nobody
// declared is 501, as AT Protocol servers have it; one that is declared can only
// have been sent with another HTTP method than its own.
func (s *Service) refuse(c echo.Context) error {
	name := c.Param("nsid")
	if name == "" || strings.Contains(name, "/") { // echo's last parameter takes the rest of a path
		return echo.ErrNotFound
	}
	nsid, err := syntax.ParseNSID(name)
	if err != nil {
		return InvalidRequest("expected the NSID of a method after /xrpc/, got %s", Quote(name))
	}
	for _, q := range s.catalog.Queries() {
		if q.NSID == nsid {
			c.Response().Header().Set(echo.HeaderAllow, "GET, HEAD, OPTIONS")
			return &Error{
				Status: http.StatusMethodNotAllowed, Name: "InvalidRequest",
				Message: string(nsid) + " is a query: expected HTTP method GET",
			}
		}
	}
	return methodNotImplemented("no method %s here", Quote(string(nsid)))
}
