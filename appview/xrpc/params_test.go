package xrpc

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// empty is a store that holds nothing and counts how often it is read.
type empty struct{ reads int }

func (e *empty) Get(context.Context, record.Key) (record.Record, error) {
	e.reads++
	return record.Record{}, store.ErrNotFound
}

func (e *empty) List(context.Context, store.Query) (store.Page, error) {
	e.reads++
	return store.Page{}, nil
}

func (e *empty) ListForeign(context.Context, store.ForeignQuery) (store.Page, error) {
	e.reads++
	return store.Page{}, nil
}

func (e *empty) ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error) {
	e.reads++
	return "", store.ErrNotFound
}

func loadCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	return c
}

// serve mounts the service as the server does.
func serve(s *Service) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = ErrorHandler(slog.New(slog.DiscardHandler))
	s.Mount(e)
	return e
}

// ask sends one request to a handler.
func ask(t testing.TB, h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res := httptest.NewRecorder()
	h.ServeHTTP(res, req)
	return res
}

// refused asserts an error answer and returns its message.
func refused(t testing.TB, res *httptest.ResponseRecorder, status int, name string) string {
	t.Helper()
	require.Equal(t, status, res.Code, res.Body)
	require.Equal(t, "application/json", strings.Split(res.Header().Get("Content-Type"), ";")[0])
	var body map[string]string
	require.NoError(t, json.Unmarshal(res.Body.Bytes(), &body))
	require.Len(t, body, 2, "an error has the properties error and message: %s", res.Body)
	require.Equal(t, name, body["error"], res.Body)
	require.NotEmpty(t, body["message"])
	return body["message"]
}

const someDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

// wellFormedValue is a value that a parameter takes, as a client would send it.
func wellFormedValue(t testing.TB, q *catalog.Query, p catalog.Param) string {
	t.Helper()
	switch p.Type {
	case catalog.Integer:
		return "1"
	case catalog.Boolean:
		return "true"
	}
	switch p.Format {
	case "at-uri":
		collection := q.Collection
		if q.Kind != catalog.Get {
			collection = "com.example.thing"
		}
		return "at://" + someDID + "/" + string(collection) + "/3lwafzkjqm25s"
	case "at-identifier", "did":
		return someDID
	case "nsid":
		return "com.example.thing"
	case "":
		return "text"
	}
	t.Fatalf("%s: parameter %s has the format %s, which this test does not know", q.NSID, p.Name, p.Format)
	return ""
}

// malformedValues are values that a parameter must refuse, by its type, format
// and bounds, each under what is wrong with it; percent-encoded already.
func malformedValues(p catalog.Param) map[string]string {
	bad := map[string]string{
		"not UTF-8":                 "a%ff",
		"UTF-8 surrogate":           "%ed%a0%80",
		"NUL":                       "a%00b",
		"malformed percent-encoded": "a%zz",
		"percent sign alone":        "%",
	}
	add := func(values ...string) {
		for _, v := range values {
			bad[v] = url.QueryEscape(v)
		}
	}
	switch p.Type {
	case catalog.Integer:
		add("", "x", "1.0", "1e1", "0x1", " 1", "1 ", "+1", "٣", "99999999999999999999", "-")
		if p.Minimum != nil && *p.Minimum == 1 {
			add("0", "-1")
		}
		if p.Maximum != nil {
			add("101000")
			if *p.Maximum == 100 {
				add("101")
			}
			if *p.Maximum == 200 {
				add("201")
			}
		}
	case catalog.Boolean:
		add("", "1", "yes", "TRUE", "null")
	}
	switch p.Format {
	case "at-uri":
		add("", "x", "https://a.example", "at://", "at:///a.b.c/d", "at://did:plc:x/nocollection/r", "at://"+someDID+"/a.b.c/sp ace",
			"at://"+someDID+"/a.b.c/d/e", "at://"+someDID+"/a.b.c/d#frag", "at://"+someDID+"/a.b.c/d?q", "at://not a handle/a.b.c/d",
			"at://"+someDID+"/a.b.c/"+strings.Repeat("r", 513), "at://"+someDID+"/"+strings.Repeat("a", 9000))
	case "at-identifier":
		add("", "x", "@alice.test", "did:plc", "did:plc:", "alice..test", "alice test.example", "-a.test", "did:x:"+strings.Repeat("y", 3000))
	case "did":
		add("", "alice.test", "did:", "did:plc:", "DID:plc:x", "did:plc:a b")
	case "nsid":
		add("", "x", "a.b", "com.example.", "com example.thing")
	}
	if p.MaxLength != nil {
		add(strings.Repeat("x", *p.MaxLength+1), strings.Repeat("é", *p.MaxLength/2+1))
	}
	return bad
}

// with is the query string of required parameters, and one more pair.
func with(t testing.TB, q *catalog.Query, name, encoded string) string {
	t.Helper()
	var pairs []string
	for _, p := range q.Params {
		if p.Required && p.Name != name {
			pairs = append(pairs, p.Name+"="+url.QueryEscape(wellFormedValue(t, q, p)))
		}
	}
	if name != "" {
		pairs = append(pairs, name+"="+encoded)
	}
	return "/xrpc/" + string(q.NSID) + "?" + strings.Join(pairs, "&")
}

// forEveryParameter runs a test for each parameter of each query that is answered.
func forEveryParameter(t *testing.T, test func(t *testing.T, q *catalog.Query, p catalog.Param, h http.Handler, reads *empty)) {
	c := loadCatalog(t)
	queries := 0
	for _, q := range c.Queries() {
		if q.NSID == "pub.layers.integration.applyLens" {
			continue
		}
		queries++
		for _, p := range q.Params {
			t.Run(string(q.NSID)+"/"+p.Name, func(t *testing.T) {
				t.Parallel()
				reads := &empty{}
				test(t, q, p, serve(New(c, reads, nil)), reads)
			})
		}
	}
	require.GreaterOrEqual(t, queries, 55)
}

func TestEveryParameterRefusesWhatItsLexiconRefuses(t *testing.T) {
	t.Parallel()
	forEveryParameter(t, func(t *testing.T, q *catalog.Query, p catalog.Param, h http.Handler, reads *empty) {
		for what, value := range malformedValues(p) {
			message := refused(t, ask(t, h, "GET", with(t, q, p.Name, value)), 400, "InvalidRequest")
			require.Contains(t, message, `"`+p.Name+`"`, "%.50q: the message must name the parameter", what)
			require.Less(t, len(message), 1000, "a message may not be as long as the input")
			for _, r := range message {
				require.True(t, r >= ' ' && r <= '~', "%.50q: unprintable %q in the message", what, r)
			}
		}
		require.Zero(t, reads.reads, "a malformed request reached the store")
	})
}

func TestEveryParameterTakesWhatItsLexiconTakes(t *testing.T) {
	t.Parallel()
	forEveryParameter(t, func(t *testing.T, q *catalog.Query, p catalog.Param, h http.Handler, _ *empty) {
		if p.Name == "cursor" {
			return // only what was handed out is taken
		}
		good := []string{wellFormedValue(t, q, p)}
		if p.Maximum != nil {
			good = append(good, "100")
		}
		if p.Type == catalog.String && p.Format == "" {
			good = append(good, "", "a b+c&d=e;f%", "日本語", "\u2028", `"'\<>`)
			if p.MaxLength != nil {
				good = append(good, strings.Repeat("x", *p.MaxLength))
			}
		}
		for _, value := range good {
			res := ask(t, h, "GET", with(t, q, p.Name, url.QueryEscape(value)))
			if q.Kind == catalog.Get || q.NSID == getExternal {
				require.NotContains(t, res.Body.String(), "InvalidRequest", "%q", value)
				continue
			}
			require.Equal(t, 200, res.Code, "%q: %s", value, res.Body)
		}
	})
}

func TestEveryRequiredParameterIsMissed(t *testing.T) {
	t.Parallel()
	forEveryParameter(t, func(t *testing.T, q *catalog.Query, p catalog.Param, h http.Handler, reads *empty) {
		if !p.Required {
			return
		}
		target := strings.Replace(with(t, q, "", ""), p.Name+"=", "unknown=", 1)
		message := refused(t, ask(t, h, "GET", target), 400, "InvalidRequest")
		require.Contains(t, message, `"`+p.Name+`"`)
		require.Contains(t, message, expected(p))
		require.Zero(t, reads.reads)
	})
}

func TestEveryParameterGivenTwice(t *testing.T) {
	t.Parallel()
	forEveryParameter(t, func(t *testing.T, q *catalog.Query, p catalog.Param, h http.Handler, reads *empty) {
		if p.Name == "cursor" {
			return
		}
		value := url.QueryEscape(wellFormedValue(t, q, p))
		res := ask(t, h, "GET", with(t, q, p.Name, value)+"&"+p.Name+"="+value)
		if p.Repeated {
			require.Equal(t, 200, res.Code, res.Body)
			return
		}
		require.Contains(t, refused(t, res, 400, "InvalidRequest"), `"`+p.Name+`"`)
		require.Zero(t, reads.reads)
	})
}

func TestUnknownParametersArePassedOver(t *testing.T) {
	t.Parallel()
	h := serve(New(loadCatalog(t), &empty{}, nil))
	for _, extra := range []string{"viewer=x", "viewer=x&viewer=y", "languages[]=yo", "_=%00", "&&&", "=", "a=%ff", "a;b", "Limit=0"} {
		res := ask(t, h, "GET", "/xrpc/pub.layers.corpus.listCorpora?repo="+someDID+"&"+extra)
		require.Equal(t, 200, res.Code, "%s: %s", extra, res.Body)
	}
	for _, broken := range []string{"a=%", "%zz=1", "%=1"} {
		res := ask(t, h, "GET", "/xrpc/pub.layers.corpus.listCorpora?repo="+someDID+"&"+broken)
		refused(t, res, 400, "InvalidRequest")
	}
}
