package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// CatchAll is the route of the paths under [Prefix] that the table has not.
const CatchAll = Prefix + "/*"

// Mount adds every route of the table for GET and HEAD.
func (s *Service) Mount(e *echo.Echo) {
	for i := range s.routes {
		r := &s.routes[i]
		serve := func(c echo.Context) error { return s.serve(c, r) }
		e.GET(r.Pattern(), serve)
		e.HEAD(r.Pattern(), serve)
	}
	e.Any(CatchAll, s.refuse)
}

// serve parses a request and has it answered.
func (s *Service) serve(c echo.Context, r *Route) error {
	query, err := r.rawQuery(c)
	if err != nil {
		return err
	}
	args, err := r.endpoint.Parse(query)
	if err != nil {
		return err
	}
	return s.answer(&Call{Context: c, Arguments: &args, route: r})
}

// rawQuery is the query string together with the parameters of the path.
func (r *Route) rawQuery(c echo.Context) (string, error) {
	req := c.Request()
	if err := r.refuseUnknown(req.URL.RawQuery); err != nil {
		return "", err
	}
	pairs := []string{req.URL.RawQuery}
	for _, name := range r.pathNames() {
		value := c.Param(name)
		if req.URL.RawPath != "" { // then the router has not decoded it
			decoded, err := url.PathUnescape(value)
			if err != nil {
				return "", xrpc.InvalidRequest("path parameter %q: malformed percent-encoding in %s", name, xrpc.Quote(value))
			}
			value = decoded
		}
		pairs = append(pairs, name+"="+url.QueryEscape(value))
	}
	return strings.Join(pairs, "&"), nil
}

// refuseUnknown insists that the query string has parameters of the route alone.
func (r *Route) refuseUnknown(raw string) error {
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if pair == "" || err != nil {
			continue // what is malformed is refused where it is parsed
		}
		if !slices.ContainsFunc(r.Params, func(p Param) bool { return p.Name == name && !p.InPath }) {
			return xrpc.InvalidRequest("parameter %s is not one of this endpoint's: expected %s", xrpc.Quote(name), r.queryNames())
		}
	}
	return nil
}

// queryNames lists the parameters of the query string.
func (r *Route) queryNames() string {
	var names []string
	for _, p := range r.Params {
		if !p.InPath {
			names = append(names, p.Name)
		}
	}
	if names == nil {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// refuse answers the paths that no route has, and methods that the one here has not.
func (s *Service) refuse(c echo.Context) error {
	if method := c.Request().Method; method != http.MethodGet && method != http.MethodHead {
		c.Response().Header().Set(echo.HeaderAllow, "GET, HEAD, OPTIONS")
		return &xrpc.Error{Status: http.StatusMethodNotAllowed, Name: "InvalidRequest", Message: "everything under " + Prefix + " is read by GET"}
	}
	return &xrpc.Error{Status: http.StatusNotFound, Name: "NotFound", Message: "no such path; /openapi.json describes those there are"}
}
