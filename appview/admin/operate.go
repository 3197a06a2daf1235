package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

func (s *Service) resync(c echo.Context, a action) (int, any, error) {
	text, err := url.PathUnescape(c.Param("did"))
	if err != nil {
		return 0, nil, xrpc.InvalidRequest("the repository: expected a DID")
	}
	did, err := syntax.ParseDID(text)
	if err != nil {
		return 0, nil, xrpc.InvalidRequest("the repository: expected a DID")
	}
	ctx := c.Request().Context()
	err = s.deps.Log.Within(ctx, a.noted("repo.resync", string(did)), func(tx pgx.Tx) (string, error) {
		added, err := store.NewResyncs(tx).Add(ctx, []store.Wanted{{DID: did, Reason: "asked for by the operator"}})
		return map[int]string{0: "was waiting already, and is due now", 1: "asked for"}[added], err
	})
	if err != nil {
		return 0, nil, err
	}
	led, err := s.deps.Resyncs.HasWriter(ctx)
	return http.StatusAccepted, map[string]any{"did": did, "indexerRuns": led}, err
}

func (s *Service) reindexStatus(c echo.Context, _ action) (int, any, error) {
	status, err := s.deps.Reindex.Status(c.Request().Context())
	return http.StatusOK, status, err
}

func (s *Service) startReindex(c echo.Context, a action) (int, any, error) {
	var targets []record.Target
	for name := range strings.SplitSeq(c.QueryParam("to"), ",") {
		if name != "" {
			targets = append(targets, record.Target(name))
		}
	}
	ctx, noted := c.Request().Context(), a.noted("reindex", c.QueryParam("to"))
	err := s.deps.Reindex.Start(ctx, targets, noted)
	switch {
	case errors.Is(err, ErrUnknownTarget):
		return 0, nil, xrpc.InvalidRequest("parameter to: %v", err)
	case errors.Is(err, ErrRunning):
		noted.Outcome, noted.Detail = store.Refused, err.Error()
		return 0, nil, errors.Join(&xrpc.Error{Status: http.StatusConflict, Name: "ReindexRunning", Message: err.Error()}, s.deps.Log.Note(ctx, noted))
	case err != nil:
		return 0, nil, err
	}
	status, err := s.deps.Reindex.Status(ctx)
	return http.StatusAccepted, status, err
}

func (s *Service) abortReindex(c echo.Context, a action) (int, any, error) {
	ctx, noted := c.Request().Context(), a.noted("reindex.abort", "")
	err := s.deps.Reindex.Abort(ctx)
	noted.Outcome = store.Done
	if err != nil {
		noted.Outcome, noted.Detail = store.Failed, err.Error()
	}
	if err = errors.Join(err, s.deps.Log.Note(ctx, noted)); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, nil
}

// noted is an action as operators see it.
type noted struct {
	ID        int64     `json:"id"`
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Via       string    `json:"via"`
	Action    string    `json:"action"`
	Subject   string    `json:"subject,omitempty"`
	Outcome   string    `json:"outcome"`
	Detail    string    `json:"detail,omitempty"`
	RequestID string    `json:"requestId,omitempty"`
}

func (s *Service) listActions(c echo.Context, _ action) (int, any, error) {
	limit, before, err := page(c)
	if err != nil {
		return 0, nil, err
	}
	filter := store.AdminFilter{Actor: c.QueryParam("actor"), Action: c.QueryParam("action"), RequestID: c.QueryParam("requestId")}
	found, err := s.deps.Log.List(c.Request().Context(), filter, before, limit)
	if err != nil {
		return 0, nil, err
	}
	body := struct {
		Actions []noted `json:"actions"`
		Before  int64   `json:"before,omitempty"` // of the next page
	}{Actions: []noted{}}
	for _, a := range found {
		body.Actions = append(body.Actions, noted{a.ID, a.At.UTC(), a.Actor, a.Via, a.Action, a.Subject, string(a.Outcome), a.Detail, a.RequestID})
	}
	if len(found) == limit {
		body.Before = found[limit-1].ID
	}
	return http.StatusOK, body, nil
}

// route is a row of the table from which routes and their description are made.
type route struct {
	method, path, summary string
	params                []param // of the query
	answer                answerer
}

type param struct{ name, about string }

// describe is the OpenAPI document of the routes.
func (s *Service) describe(echo.Context, action) (int, any, error) {
	paths := map[string]map[string]any{}
	for _, r := range s.routes {
		path, inPath := r.template()
		params := []map[string]any{}
		for _, name := range inPath {
			params = append(params, map[string]any{"name": name, "in": "path", "required": true, "schema": map[string]string{"type": "string"}})
		}
		for _, p := range r.params {
			params = append(params, map[string]any{"name": p.name, "in": "query", "description": p.about, "schema": map[string]string{"type": "string"}})
		}
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(r.method)] = map[string]any{
			"operationId": strings.ToLower(r.method) + strings.NewReplacer("/", "-", "{", "", "}", "", ".", "-").Replace(strings.TrimPrefix(path, prefix)),
			"summary":     r.summary, "parameters": params,
			"responses": map[string]any{"2XX": map[string]string{"description": "Done, or asked for"}, "default": map[string]string{"description": "error, message, requestId"}},
		}
	}
	return http.StatusOK, map[string]any{
		"openapi": "3.1.0",
		"info": map[string]string{
			"title": "Layers appview, for operators", "version": s.deps.Version,
			"description": "On the operator's address of the indexer. Each request has Authorization: Bearer with the static token, or with a service-auth token of an operator's account.",
		},
		"paths":      paths,
		"security":   []map[string][]string{{"token": {}}},
		"components": map[string]any{"securitySchemes": map[string]any{"token": map[string]string{"type": "http", "scheme": "bearer"}}},
	}, nil
}

// template is the route's path as OpenAPI writes it, with the names in it.
func (r route) template() (path string, names []string) {
	parts := strings.Split(prefix+r.path, "/")
	for i, part := range parts {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			names, parts[i] = append(names, name), fmt.Sprintf("{%s}", name)
		}
	}
	return strings.Join(parts, "/"), names
}

// Routes are the methods and paths that there are, as GET /api/v1/admin/dlq/{id}.
func (s *Service) Routes() []string {
	var out []string
	for _, r := range s.routes {
		path, _ := r.template()
		out = append(out, r.method+" "+path)
	}
	return out
}
