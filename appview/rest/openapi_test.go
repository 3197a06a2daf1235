package rest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

// unserved is a service whose routes and document can be looked at.
func unserved(t *testing.T) *Service {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	return New(Deps{Catalog: c, XRPC: xrpc.New(c, nil, nil), Search: Search{Schema: searchSchema(c)}, Stats: statistics.NewReader(nil), Version: "test"})
}

func documentOf(t *testing.T, s *Service) map[string]any {
	t.Helper()
	text, err := s.Document()
	require.NoError(t, err)
	var document map[string]any
	require.NoError(t, json.Unmarshal(text, &document))
	return document
}

// What is mounted and what is described is the same, in both directions.
func TestDocumentAndRoutesAreTheSame(t *testing.T) {
	t.Parallel()
	s := unserved(t)
	e := echo.New()
	s.Mount(e)
	s.xrpc.Mount(e)
	described := map[string]bool{}
	for path, item := range documentOf(t, s)["paths"].(map[string]any) {
		operation := item.(map[string]any)["get"].(map[string]any)
		described[path] = true
		var names []string
		params, _ := operation["parameters"].([]any)
		for _, p := range params {
			if p := p.(map[string]any); p["in"] == "path" {
				names = append(names, p["name"].(string))
				require.Equal(t, true, p["required"], path)
			}
		}
		require.Equal(t, (&Route{Path: path}).pathNames(), names, path)
		require.NotEmpty(t, operation["responses"].(map[string]any)["200"].(map[string]any)["content"], path)
	}
	mounted := map[string]bool{}
	for _, r := range e.Routes() {
		if r.Method != echo.GET || r.Path == CatchAll || r.Path == xrpc.CatchAll {
			continue
		}
		segments := strings.Split(r.Path, "/")
		for i, segment := range segments {
			if name, ok := strings.CutPrefix(segment, ":"); ok {
				segments[i] = "{" + name + "}"
			}
		}
		mounted[strings.Join(segments, "/")] = true
	}
	for _, q := range s.catalog.Queries() { // what is only declined has no operation
		if !slices.Contains(s.xrpc.Queries(), q.NSID) {
			delete(mounted, "/xrpc/"+string(q.NSID))
		}
	}
	require.Equal(t, mounted, described)
}

// Every $ref leads somewhere, and every component is led to.
func TestDocumentHoldsTogether(t *testing.T) {
	t.Parallel()
	document := documentOf(t, unserved(t))
	components := document["components"].(map[string]any)
	led := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && !led[ref] {
				led[ref] = true
				kind, name, _ := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
				target := components[kind].(map[string]any)[name]
				require.NotNil(t, target, ref)
				walk(target)
			}
			for name, inner := range v {
				require.NotContains(t, name, "\x00", "a marker was left in the document")
				walk(inner)
			}
		}
	}
	walk(document["paths"])
	for kind, all := range components {
		for name := range all.(map[string]any) {
			require.True(t, led["#/components/"+kind+"/"+name], "nothing refers to %s %s", kind, name)
		}
	}
}

// The page and its files are there, and may run nothing that is not theirs.
func TestDocumentationIsServedByTheProgramItself(t *testing.T) {
	t.Parallel()
	s := unserved(t)
	e := echo.New()
	require.NoError(t, s.MountDocs(e))
	page := askOf(t, e, "/docs")
	require.Equal(t, http.StatusOK, page.status)
	require.Equal(t, "text/html; charset=utf-8", page.header.Get("Content-Type"))
	require.NotContains(t, string(page.body), "//", "nothing comes from another host")
	policy := page.header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "unsafe")
	for _, inline := range []string{"<script>", "<style>", " style=", " onclick="} {
		require.NotContains(t, string(page.body), inline)
	}
	for _, file := range regexp.MustCompile(`(?:href|src)="(/docs/[^"]+)"`).FindAllStringSubmatch(string(page.body), -1) {
		got := askOf(t, e, file[1])
		require.Equal(t, http.StatusOK, got.status, file[1])
		require.NotEmpty(t, got.body)
		require.NotContains(t, string(got.body), "innerHTML")
	}
	require.Equal(t, http.StatusOK, askOf(t, e, "/openapi.json").status)
}

// Each example of an answer is what its schema says, as far as required properties
// and types go, and examples of parameters are accepted.
func TestExamplesAreOfTheirSchemas(t *testing.T) {
	t.Parallel()
	s := unserved(t)
	for i := range s.Routes() {
		r := &s.Routes()[i]
		query := url.Values{}
		for _, p := range r.Params {
			if p.Example != "" {
				query.Set(p.Name, p.Example)
			}
		}
		_, err := r.endpoint.Parse(query.Encode())
		require.NoError(t, err, r.Path)
		require.NotEmpty(t, r.Summary, r.Path)
		require.True(t, r.Answer.Schema == nil || r.Answer.Example != nil, "%s: no example", r.Path)
		for _, p := range r.Params {
			require.NotEmpty(t, p.Description, "%s: %s", r.Path, p.Name)
		}
	}
}
