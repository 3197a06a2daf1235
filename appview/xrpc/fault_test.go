package xrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// failing is a store whose every read ends as it is told.
type failing func(context.Context) error

func (f failing) Get(ctx context.Context, _ record.Key) (record.Record, error) {
	return record.Record{}, f(ctx)
}
func (f failing) List(ctx context.Context, _ store.Query) (store.Page, error) {
	return store.Page{}, f(ctx)
}
func (f failing) ListForeign(ctx context.Context, _ store.ForeignQuery) (store.Page, error) {
	return store.Page{}, f(ctx)
}
func (f failing) ResolveHandle(ctx context.Context, _ syntax.Handle) (syntax.DID, error) {
	return "", f(ctx)
}

// reads are requests that lead to each read of the store.
var reads = []string{
	getCorpus + "at://" + someDID + "/pub.layers.corpus.corpus/a",
	getCorpus + "at://alice.test/pub.layers.corpus.corpus/a",
	listCorpora + "repo=" + someDID,
	listCorpora + "repo=alice.test",
	"/xrpc/pub.layers.integration.listExternal",
	"/xrpc/pub.layers.integration.getExternal?uri=at://" + someDID + "/a.b.c/d",
}

// TestAStoreThatHangsLeavesNothingBehind is not parallel: it looks at every
// goroutine of the process.
func TestAStoreThatHangsLeavesNothingBehind(t *testing.T) {
	h := serve(New(loadCatalog(t), failing(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), nil))
	var answered sync.WaitGroup
	codes := make(chan int, 100)
	for i := range cap(codes) {
		answered.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			req := httptest.NewRequestWithContext(ctx, http.MethodGet, reads[i%len(reads)], nil)
			res := httptest.NewRecorder()
			h.ServeHTTP(res, req)
			codes <- res.Code
		})
	}
	answered.Wait()
	close(codes)
	for code := range codes {
		require.Equal(t, http.StatusServiceUnavailable, code)
	}
	var stacks strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
	require.NotContains(t, stacks.String(), "xrpc.(*Service)")
	require.NotContains(t, stacks.String(), "xrpc.(*handles)")
}

func TestStoreErrorsAreToldApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		name   string
	}{
		{fmt.Errorf("get: %w", context.DeadlineExceeded), 503, "ServiceUnavailable"},
		{fmt.Errorf("get: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 503, "ServiceUnavailable"},
		{fmt.Errorf("get: %w", io.ErrUnexpectedEOF), 503, "ServiceUnavailable"},
		{fmt.Errorf("get: %w", &pgconn.PgError{Code: "57P03", Message: "the database system is starting up"}), 503, "ServiceUnavailable"},
		{fmt.Errorf("get: %w", &pgconn.PgError{Code: "53300", Message: "too many clients already"}), 503, "ServiceUnavailable"},
		{fmt.Errorf("get: %w", &pgconn.PgError{Code: "42P01", Message: "relation does not exist"}), 500, "InternalServerError"},
		{errors.New("relation does not exist"), 500, "InternalServerError"},
	} {
		h := serve(New(loadCatalog(t), failing(func(context.Context) error { return c.err }), nil))
		for _, target := range reads {
			res := ask(t, h, "GET", target)
			message := refused(t, res, c.status, c.name)
			require.NotContains(t, message, c.err.Error())
			require.Equal(t, c.status == 503, res.Header().Get("Retry-After") != "", c.err)
		}
	}
}

func TestAClientThatHangsUpIsNoFaultOfOurs(t *testing.T) {
	t.Parallel()
	h := serve(New(loadCatalog(t), failing(func(context.Context) error { return context.Canceled }), nil)).(*echo.Echo)
	res := ask(t, h, "GET", reads[0])
	require.Empty(t, res.Body.Bytes(), "nobody is there to read it")
}
