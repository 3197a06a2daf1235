package rest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// linesOf takes a stream apart: its records, and the line that ends it.
func linesOf(t *testing.T, body []byte) ([]view, lastLine) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	var views []view
	for _, line := range lines[:len(lines)-1] {
		var v view
		require.NoError(t, json.Unmarshal(line, &v), "%s", line)
		require.NotEmpty(t, v.URI, "%s", line)
		views = append(views, v)
	}
	var last lastLine
	require.NoError(t, json.Unmarshal(lines[len(lines)-1], &last))
	require.NotEmpty(t, last.End, "%s", lines[len(lines)-1])
	return views, last
}

func TestListsAreExportedWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, rt := range w.rest.types {
		w.fill(t, rt.collection, 60) // more than a page
		want := w.expect(t, rt, url.Values{})
		for _, got := range []answer{w.ask(t, Prefix+"/"+rt.name+"/export"), w.ask(t, Prefix+"/"+rt.name, "Accept", "application/x-ndjson")} {
			require.Equal(t, http.StatusOK, got.status, "%s", got.body)
			require.Equal(t, mediaLines, got.header.Get("Content-Type"))
			views, last := linesOf(t, got.body)
			require.Equal(t, want, urisOf(views), rt.name)
			require.Equal(t, lastLine{End: "complete", Records: 60}, last)
		}
		require.Equal(t, string(w.members[rt.collection.NSID][0].json), string(firstOf(t, w.ask(t, Prefix+"/"+rt.name+"/export").body).Value))
	}
	first := w.ask(t, Prefix+"/expressions?limit=20&fields=kind", "Accept", "application/x-ndjson")
	views, last := linesOf(t, first.body)
	require.Len(t, views, 20)
	require.NotEmpty(t, last.Cursor, "a limit ends a list before its end")
	rest, end := linesOf(t, w.ask(t, Prefix+"/expressions?fields=kind&cursor="+last.Cursor, "Accept", "application/x-ndjson").body)
	require.Equal(t, w.expect(t, w.rest.typeOf(expressions), url.Values{}), urisOf(append(views, rest...)))
	require.Empty(t, end.Cursor)
	w.refused(t, "/expressions/export?limit=3", http.StatusBadRequest, "InvalidRequest")
	w.refused(t, "/expressions/export?cursor=x", http.StatusBadRequest, "InvalidRequest")
}

func firstOf(t *testing.T, body []byte) view {
	t.Helper()
	views, _ := linesOf(t, body)
	return views[0]
}

// breaking is a store whose lists fail from a page on.
type breaking struct {
	*store.Reader
	pages int // that are still to be had
	err   error
}

func (b *breaking) List(ctx context.Context, q store.Query) (store.Page, error) {
	if b.pages--; b.pages < 0 {
		return store.Page{}, b.err
	}
	return b.Reader.List(ctx, q)
}

// A store that fails in the middle ends the stream with a line that says so, and
// with the cursor that goes on.
func TestAStreamThatIsCutShortSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rt := w.rest.typeOf(expressions)
	w.fill(t, rt.collection, 60)
	broken := &breaking{Reader: store.NewReader(w.db.Pool), pages: 1, err: context.DeadlineExceeded}
	served := serviceOver(w.catalog, broken)
	got := askOf(t, served, Prefix+"/expressions/export")
	require.Equal(t, http.StatusOK, got.status)
	views, last := linesOf(t, got.body)
	require.Equal(t, "error", last.End)
	require.Equal(t, "ServiceUnavailable", last.Error)
	require.Equal(t, "request-1", last.RequestID)
	require.Equal(t, len(views), last.Records)
	rest, end := linesOf(t, w.ask(t, Prefix+"/expressions/export?cursor="+last.Cursor).body)
	require.Equal(t, "complete", end.End)
	require.Equal(t, w.expect(t, rt, url.Values{}), urisOf(append(views, rest...)))

	got = askOf(t, served, Prefix+"/expressions/export") // fails before the first line
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, "application/json", strings.Split(got.header.Get("Content-Type"), ";")[0])
}

// endless is a store with one list that does not end.
type endless struct {
	reader
	value   json.RawMessage
	asked   chan struct{} // for every page
	stopped chan error    // why the last page was not given
	watch   func(page int)
	page    int
}

func (e *endless) List(ctx context.Context, q store.Query) (store.Page, error) {
	e.page++
	if e.watch != nil {
		e.watch(e.page)
	}
	if err := ctx.Err(); err != nil {
		e.stopped <- err
		return store.Page{}, err
	}
	if e.asked != nil {
		select {
		case e.asked <- struct{}{}:
		case <-ctx.Done():
			e.stopped <- ctx.Err()
			return store.Page{}, ctx.Err()
		}
	}
	p := store.Page{Next: &store.Position{DID: alice, Rkey: "a"}}
	for i := range q.Limit {
		p.Records = append(p.Records, record.Record{Key: record.Key{DID: alice, Collection: q.Collection, Rkey: syntax.RecordKey(fmt.Sprint("r", i))}, Value: bytes.Clone(e.value)})
	}
	return p, nil
}

func (e *endless) ListForeign(context.Context, store.ForeignQuery) (store.Page, error) {
	return store.Page{}, errors.ErrUnsupported
}

func (e *endless) ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error) {
	return "", store.ErrNotFound
}

// A client that goes away ends the questions to the store.
func TestAStreamEndsWithItsClient(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load()
	require.NoError(t, err)
	source := &endless{value: json.RawMessage(`{}`), asked: make(chan struct{}), stopped: make(chan error, 1)}
	server := httptest.NewServer(serviceOver(c, source))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+Prefix+"/expressions/export", nil)
	require.NoError(t, err)
	go func() { <-source.asked }()
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = bufio.NewReader(res.Body).ReadString('\n')
	require.NoError(t, err, "lines come before the end is known")
	leave()
	require.ErrorIs(t, <-source.stopped, context.Canceled)
}

// More streams than there are slots are refused at once, and told when to come back.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range mostStreams {
		w.rest.slots <- struct{}{}
	}
	got := w.ask(t, Prefix+"/corpora/export")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "10", got.header.Get("Retry-After"))
	<-w.rest.slots
	require.Equal(t, http.StatusOK, w.ask(t, Prefix+"/corpora/export").status)
}

// HEAD asks the store for nothing that it would not send.
func TestHeadOfAStreamReadsNothing(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load()
	require.NoError(t, err)
	source := &endless{value: json.RawMessage(`{}`), stopped: make(chan error, 1)}
	recorder := httptest.NewRecorder()
	serviceOver(c, source).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodHead, Prefix+"/expressions/export", nil))
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Equal(t, mediaLines, recorder.Header().Get("Content-Type"))
	require.Zero(t, source.page)
}

// What a stream has sent is not kept: 400 MB go through a heap of a few.
func TestAStreamTakesNoMoreMemoryTheLongerItIs(t *testing.T) {
	c, err := catalog.Load()
	require.NoError(t, err)
	ctx, enough := context.WithCancel(t.Context())
	value := json.RawMessage(`{"text":"` + strings.Repeat("x", 40_000) + `"}`)
	var least, most uint64
	source := &endless{value: value, stopped: make(chan error, 1), watch: func(page int) {
		if page%50 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if least == 0 {
				least = m.HeapAlloc
			}
			most = max(most, m.HeapAlloc)
		}
		if page == 200 {
			enough()
		}
	}}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, Prefix+"/expressions/export", nil)
	w := &drain{header: http.Header{}}
	serviceOver(c, source).ServeHTTP(w, req)
	require.Greater(t, w.bytes, 390_000_000)
	require.Less(t, most, least+32<<20)
}

// drain takes an answer without keeping it.
type drain struct {
	header http.Header
	bytes  int
}

func (d *drain) Header() http.Header { return d.header }
func (d *drain) WriteHeader(int)     {}
func (d *drain) Write(p []byte) (int, error) {
	d.bytes += len(p)
	return len(p), nil
}

func TestACorpusIsExportedWithItsMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ontology := w.put(t, bob, "pub.layers.ontology.ontology", "o", nil)
	corpus := w.put(t, alice, corpora, "c", map[string]any{"ontologyRefs": []any{ontology.key.String()}})
	want := []string{corpus.key.String(), ontology.key.String()}
	for i := range 60 { // more than are read at once
		e := w.put(t, bob, expressions, fmt.Sprint("e", i), nil)
		m := w.put(t, carol, memberships, fmt.Sprint("m", i), map[string]any{"corpusRef": corpus.key.String(), "expressionRef": e.key.String()})
		want = append(want, e.key.String(), m.key.String())
		if i%10 == 0 {
			l := w.put(t, alice, layers, fmt.Sprint("l", i), map[string]any{"expression": e.key.String()})
			s := w.put(t, alice, "pub.layers.segmentation.segmentation", fmt.Sprint("s", i), map[string]any{"expression": e.key.String()})
			want = append(want, l.key.String(), s.key.String())
		}
	}
	w.put(t, carol, memberships, "dangling", map[string]any{"corpusRef": corpus.key.String(), "expressionRef": exampleURI(expressions)})
	other := w.put(t, bob, expressions, "other", nil)
	w.put(t, alice, layers, "other", map[string]any{"expression": other.key.String()})
	want = append(want, "at://"+string(carol)+"/pub.layers.corpus.membership/dangling")
	views, last := linesOf(t, w.ask(t, Prefix+w.at(corpus.key, "export")).body)
	require.ElementsMatch(t, want, urisOf(views))
	require.Equal(t, lastLine{End: "complete", Records: len(want)}, last)
	w.refused(t, "/corpora/"+url.PathEscape(exampleURI(corpora))+"/export", http.StatusNotFound, "RecordNotFound")
}

// serviceOver is the interface over any store.
func serviceOver(c *catalog.Catalog, reads xrpcReader) http.Handler {
	queries := xrpc.New(c, reads, nil)
	s := New(Deps{Catalog: c, Reads: reads.(reader), XRPC: queries, Version: "test"})
	return handlerOf(queries, s)
}

type xrpcReader interface {
	Get(context.Context, record.Key) (record.Record, error)
	List(context.Context, store.Query) (store.Page, error)
	ListForeign(context.Context, store.ForeignQuery) (store.Page, error)
	ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error)
}

func askOf(t *testing.T, h http.Handler, target string) answer {
	t.Helper()
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return answer{recorder.Code, recorder.Header(), recorder.Body.Bytes()}
}
