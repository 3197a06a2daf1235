package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/admin"
	"github.com/layers-pub/layers-appview/appview/caller"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const token = "a-token-that-somebody-has-generated"

// builder stands for what builds projections, which is the wiring's.
type builder struct {
	asked   []record.Target
	by      store.AdminAction
	err     error
	aborted bool
}

func (b *builder) Start(_ context.Context, targets []record.Target, by store.AdminAction) error {
	b.asked, b.by = targets, by
	return b.err
}

func (b *builder) Status(context.Context) (admin.Reindex, error) {
	return admin.Reindex{Running: b.asked != nil, Projections: []admin.Projection{}}, nil
}

func (b *builder) Abort(context.Context) error { b.aborted = true; return b.err }

type world struct {
	t       *testing.T
	db      *storetest.Database
	letters *store.DeadLetters
	service *admin.Service
	builder *builder
	http    http.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: storetest.New(t), builder: &builder{}}
	silent := slog.New(slog.DiscardHandler)
	log := store.NewAdminLog(w.db.Pool, silent)
	w.letters = store.NewDeadLetters(w.db.Pool)
	w.service = admin.New(admin.Deps{
		Operators: caller.NewOperators(caller.OperatorConfig{Token: token, Spend: log.Spend}),
		Log:       log, Letters: w.letters, Resyncs: store.NewResyncs(w.db.Pool), Reindex: w.builder, Logger: silent,
	})
	e := echo.New()
	e.HTTPErrorHandler = xrpc.ErrorHandler(silent)
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Response().Header().Set(echo.HeaderXRequestID, "request-1")
			return next(c)
		}
	})
	w.service.Mount(e)
	w.http = e
	return w
}

// add makes so many dead letters and returns their IDs, newest first.
func (w *world) add(n int) (ids []int64) {
	w.t.Helper()
	var letters []store.DeadLetter
	for i := range n {
		letters = append(letters, store.DeadLetter{Stage: []string{"validate", "frame"}[i%2], Class: "lexicon", DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Raw: fmt.Append(nil, "raw", i), Host: "h", Seq: int64(i + 1)})
	}
	require.NoError(w.t, w.letters.Add(w.t.Context(), letters))
	found, err := w.letters.List(w.t.Context(), store.LetterFilter{}, 0, n)
	require.NoError(w.t, err)
	for _, l := range found {
		ids = append(ids, l.ID)
	}
	return ids
}

func (w *world) do(status int, method, path string, into any) {
	w.t.Helper()
	request := httptest.NewRequest(method, "/api/v1/admin"+path, nil)
	request.Header.Set("Authorization", "Bearer "+token)
	recorder := httptest.NewRecorder()
	w.http.ServeHTTP(recorder, request)
	body, err := io.ReadAll(recorder.Body)
	require.NoError(w.t, err)
	require.Equal(w.t, status, recorder.Code, "%s %s: %s", method, path, body)
	require.Equal(w.t, "no-store", recorder.Header().Get("Cache-Control"))
	if into != nil {
		require.NoError(w.t, json.Unmarshal(body, into), "%s", body)
	}
}

type actions struct {
	Actions []struct{ Actor, Via, Action, Subject, Outcome, Detail, RequestID string }
	Before  int64
}

// last is what was noted last.
func (w *world) last() string {
	w.t.Helper()
	var got actions
	w.do(200, "GET", "/actions?limit=1", &got)
	require.Len(w.t, got.Actions, 1)
	a := got.Actions[0]
	require.Equal(w.t, []string{caller.Operator, store.ViaHTTP, "request-1"}, []string{a.Actor, a.Via, a.RequestID})
	return strings.Join([]string{a.Action, a.Subject, a.Outcome, a.Detail}, " ")
}

func TestEveryRouteIsForOperatorsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.add(1)[0]
	routes := w.service.Routes()
	require.Len(t, routes, 11)
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{id}", strconv.FormatInt(id, 10), "{did}", "did:web:a.example").Replace(path)
		for _, header := range []string{"", "Bearer ", "Bearer " + token + "x", "Basic " + token} {
			request := httptest.NewRequest(method, path, nil)
			if header != "" {
				request.Header.Set("Authorization", header)
			}
			recorder := httptest.NewRecorder()
			w.http.ServeHTTP(recorder, request)
			require.Equal(t, http.StatusUnauthorized, recorder.Code, route)
			require.JSONEq(t, `"request-1"`, string(mustField(t, recorder.Body.Bytes(), "requestId")))
		}
	}
	n, err := w.letters.Count(t.Context(), store.LetterFilter{})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.False(t, w.builder.aborted)
}

func mustField(t *testing.T, body []byte, name string) json.RawMessage {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(body, &fields))
	return fields[name]
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.add(5)
	var list struct {
		Letters []struct {
			ID        int64
			Stage     string
			Requested bool
			Raw       []byte
		}
		Before int64
	}
	var seen []int64
	for path := "/dlq?limit=2"; ; path = "/dlq?limit=2&before=" + strconv.FormatInt(list.Before, 10) {
		list.Before = 0
		w.do(200, "GET", path, &list)
		for _, l := range list.Letters {
			seen = append(seen, l.ID)
			require.Empty(t, l.Raw)
		}
		if list.Before == 0 {
			break
		}
	}
	require.Equal(t, ids, seen)
	w.do(200, "GET", "/dlq?stage=frame", &list)
	require.Len(t, list.Letters, 2)
	w.do(400, "GET", "/dlq?limit=0", nil)
	w.do(400, "GET", "/dlq?before=x", nil)

	one := "/dlq/" + strconv.FormatInt(ids[0], 10)
	var shown struct {
		Raw       []byte
		Requested bool
	}
	w.do(200, "GET", one, &shown)
	require.Equal(t, "raw4", string(shown.Raw))
	w.do(202, "POST", one+"/replay", nil)
	require.Equal(t, fmt.Sprintf("dlq.replay %d done 1 asked for", ids[0]), w.last())
	w.do(200, "GET", one, &shown)
	require.True(t, shown.Requested)
	w.do(204, "DELETE", one, nil)
	require.Equal(t, fmt.Sprintf("dlq.drop %d done dropped", ids[0]), w.last())
	for _, request := range [][2]string{{"GET", one}, {"POST", one + "/replay"}, {"DELETE", one}} {
		w.do(404, request[0], request[1], nil)
	}
	require.Contains(t, w.last(), "failed", "what was tried is noted too")
	w.do(400, "DELETE", "/dlq/all", nil)

	w.do(400, "POST", "/dlq/replay-all", nil)
	w.do(400, "POST", "/dlq/replay-all?all=true&stage=frame", nil)
	w.do(202, "POST", "/dlq/replay-all?stage=frame", nil)
	require.Equal(t, "dlq.replay stage=frame done 2 asked for", w.last())
	w.do(202, "POST", "/dlq/replay-all?all=true", nil)
	require.Equal(t, "dlq.replay all=true done 4 asked for", w.last())
}

func TestResync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var got struct {
		DID         string
		IndexerRuns bool
	}
	w.do(202, "POST", "/repos/did:web:a.example/resync", &got)
	require.False(t, got.IndexerRuns)
	require.Equal(t, "repo.resync did:web:a.example done asked for", w.last())
	w.db.Writer(t, nil)
	w.do(202, "POST", "/repos/did%3Aweb%3Aa.example/resync", &got)
	require.True(t, got.IndexerRuns)
	require.Equal(t, "did:web:a.example", got.DID)
	due, err := store.NewResyncs(w.db.Pool).Due(t.Context(), 10, nil)
	require.NoError(t, err)
	require.Len(t, due, 1)
	require.EqualValues(t, "did:web:a.example", due[0].DID)
	w.do(400, "POST", "/repos/someone/resync", nil)
}

func TestReindex(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(202, "POST", "/reindex?to=search,graph", nil)
	require.Equal(t, []record.Target{record.Search, record.Graph}, w.builder.asked)
	require.Equal(t, store.AdminAction{Actor: caller.Operator, Via: store.ViaHTTP, Action: "reindex", Subject: "search,graph", RequestID: "request-1"}, w.builder.by)
	var status admin.Reindex
	w.do(200, "GET", "/reindex", &status)
	require.True(t, status.Running)
	w.builder.err = admin.ErrRunning
	w.do(409, "POST", "/reindex", nil)
	require.Contains(t, w.last(), "reindex  refused")
	w.builder.err = fmt.Errorf("%q: %w", "x", admin.ErrUnknownTarget)
	w.do(400, "POST", "/reindex?to=x", nil)
	w.builder.err = nil
	w.do(204, "DELETE", "/reindex", nil)
	require.True(t, w.builder.aborted)
	require.Equal(t, "reindex.abort  done ", w.last())
}

func TestDescription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var doc struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	w.do(200, "GET", "/openapi.json", &doc)
	var described []string
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
			require.False(t, ids[operation.OperationID], operation.OperationID)
			ids[operation.OperationID] = true
		}
	}
	require.ElementsMatch(t, w.service.Routes(), described)
}
