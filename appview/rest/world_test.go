package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// member is a record as a test wrote it.
type member struct {
	key     record.Key
	cid     syntax.CID
	data    map[string]any
	json    json.RawMessage
	created time.Time
}

// world is a store with what the test has put into it, and the service over it.
type world struct {
	db      *storetest.Database
	catalog *catalog.Catalog
	rest    *Service
	http    http.Handler
	writer  *store.Writer
	fixture *fixture.Maker
	members map[syntax.NSID][]*member // in the order that lists have
	cache   *cache.Cache              // nil for none; takes effect with serve
	commits int64
}

var (
	alice = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	bob   = syntax.DID("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
	carol = syntax.DID("did:web:c.example")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	w := &world{catalog: c, members: map[syntax.NSID][]*member{}, fixture: fixture.New(7)}
	w.db = storetest.New(t, layout.Partitions(c)...)
	w.writer = w.db.Writer(t, nil)
	w.serve(w.db.Reads(t))
	handle := syntax.Handle("alice.test")
	w.apply(t, []store.RepoUpdate{{DID: alice, Handle: &handle}, {DID: bob}, {DID: carol}})
	return w
}

// serve makes the service over a database.
func (w *world) serve(pool *pgxpool.Pool) {
	reads := store.NewReader(pool)
	queries := xrpc.New(w.catalog, reads, nil)
	schema := searchSchema(w.catalog)
	search := Search{First: fulltext.NewSearcher(pool, schema), Schema: schema, From: record.FullText}
	w.rest = New(Deps{Catalog: w.catalog, Reads: reads, XRPC: queries, Search: search, Graph: Graph{Questions: traversal.New(relations.New(pool)), From: record.Relations}, Stats: statistics.NewReader(pool), Cache: w.cache, Version: "test"})
	w.http = handlerOf(queries, w.rest)
}

// handlerOf mounts the interfaces as the server does.
func handlerOf(queries *xrpc.Service, s *Service) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = xrpc.ErrorHandler(slog.New(slog.DiscardHandler))
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Response().Header().Set(echo.HeaderXRequestID, "request-1")
			return next(c)
		}
	})
	queries.Mount(e)
	s.Mount(e)
	return e
}

// filters are the properties that any of a type's lists filters on, sorted by name.
func filters(c *catalog.Collection) []catalog.Filter {
	all := map[string]catalog.Filter{}
	for _, l := range c.Lists {
		for _, f := range slices.Concat(l.Required, l.Optional) {
			all[f.Name] = f
		}
	}
	var sorted []catalog.Filter
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, all[name])
	}
	return sorted
}

func (w *world) apply(t *testing.T, updates []store.RepoUpdate, changes ...store.Change) {
	t.Helper()
	w.commits++
	for i := range changes {
		changes[i].Rev = syntax.NewTID(1_700_000_000_000_000+w.commits, 0)
	}
	require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Host: "test", Repos: updates, Changes: changes}))
}

// setActive does what an #account event does.
func (w *world) setActive(t *testing.T, did syntax.DID, active bool) {
	t.Helper()
	status := "deactivated"
	if active {
		status = "active"
	}
	w.apply(t, []store.RepoUpdate{{DID: did, Active: &active, Status: &status}})
}

// put writes a record; what data does not say is as the fixture has it.
func (w *world) put(t *testing.T, did syntax.DID, collection syntax.NSID, rkey string, data map[string]any) *member {
	t.Helper()
	m := &member{key: record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(rkey)}, data: w.fixture.Record(collection, data)}
	w.add(t, m)
	return m
}

func (w *world) add(t *testing.T, members ...*member) {
	t.Helper()
	var changes []store.Change
	for _, m := range members {
		block, err := atdata.MarshalCBOR(m.data)
		require.NoError(t, err)
		found, err := w.catalog.Check(m.key, block)
		require.NoError(t, err, "%s: %s", m.key, block)
		id, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
		require.NoError(t, err)
		m.cid, m.json, m.created = syntax.CID(id.String()), found.JSON, found.CreatedAt
		changes = append(changes, store.Change{
			Action: record.Create, Key: m.key, CID: m.cid, JSON: found.JSON, CreatedAt: found.CreatedAt, Filter: found.Filter, Refs: found.Refs, Links: found.Links,
		})
		list := slices.DeleteFunc(w.members[m.key.Collection], func(old *member) bool { return old.key == m.key })
		w.members[m.key.Collection] = append(list, m)
	}
	w.apply(t, nil, changes...)
	for _, list := range w.members {
		slices.SortFunc(list, func(a, b *member) int {
			return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.key.DID, b.key.DID), cmp.Compare(a.key.Rkey, b.key.Rkey))
		})
	}
}

// fill writes n records of a type in all repositories. What lists filter on has one
// of a few values, or is not there; some are made in the same moment.
func (w *world) fill(t *testing.T, c *catalog.Collection, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(len(w.members))))
	var members []*member
	for i := range n {
		given := map[string]any{}
		for _, f := range filters(c) {
			given[f.Name] = pick(rng, c, f)
		}
		if c.Schema.Property("createdAt") != nil {
			given["createdAt"] = time.Date(2025, 1, 1, 0, 0, i/3, 0, time.UTC).Format(time.RFC3339)
		}
		did := []syntax.DID{alice, bob, carol}[rng.IntN(3)]
		members = append(members, &member{
			key:  record.Key{DID: did, Collection: c.NSID, Rkey: syntax.RecordKey(fmt.Sprintf("r%03d", i))},
			data: w.fixture.Record(c.NSID, given),
		})
	}
	w.add(t, members...)
}

// valuesOf are the few that a filtered property has.
func valuesOf(c *catalog.Collection, f catalog.Filter) []string {
	s := c.Schema.Property(f.Name).Schema
	if f.Array {
		s = s.Items
	}
	switch {
	case s.Enum != nil:
		var values []string
		for _, v := range s.Enum {
			values = append(values, v.(string))
		}
		return values
	case f.ObjectRef || s.Format == "at-uri":
		return []string{exampleURI("pub.layers.expression.expression"), "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/pub.layers.expression.expression/other"}
	case s.Format == "nsid":
		return []string{"pub.layers.corpus.corpus", "com.example.thing"}
	case s.Format == "":
		return []string{"common", "rare & <odd>; \u65e5\u672c+%"}
	}
	return []string{"https://a.example/", "https://b.example/"}
}

func pick(rng *rand.Rand, c *catalog.Collection, f catalog.Filter) any {
	if !c.Schema.Property(f.Name).Required && rng.IntN(6) == 0 {
		return nil
	}
	values := valuesOf(c, f)
	one := func() any {
		v := values[rng.IntN(len(values))]
		if f.ObjectRef {
			return map[string]any{"recordRef": v}
		}
		return v
	}
	if f.Array {
		return []any{one(), one()}
	}
	return one()
}

// has works out whether a record has a value where a filter looks for it.
func (m *member) has(f catalog.Filter, value string) bool {
	is := func(v any) bool {
		if ref, ok := v.(map[string]any); ok && f.ObjectRef {
			v = ref["recordRef"]
		}
		return v == value
	}
	if list, ok := m.data[f.Name].([]any); ok {
		return slices.ContainsFunc(list, is)
	}
	return is(m.data[f.Name])
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) ask(t *testing.T, target string, header ...string) answer {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	w.http.ServeHTTP(recorder, req)
	res := recorder.Result()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res.StatusCode, res.Header, body}
}

// get asks for JSON under /api/v1, which has to be answered with 200.
func (w *world) get(t *testing.T, path string, params url.Values, into any) {
	t.Helper()
	got := w.ask(t, Prefix+path+"?"+params.Encode())
	require.Equal(t, http.StatusOK, got.status, "%s?%s: %s", path, params.Encode(), got.body)
	require.NoError(t, json.Unmarshal(got.body, into), "%s", got.body)
}

// refused asks for what is wrong, and returns the message.
func (w *world) refused(t *testing.T, target string, status int, name string) string {
	t.Helper()
	got := w.ask(t, Prefix+target)
	require.Equal(t, status, got.status, "%s: %s", target, got.body)
	var body struct{ Error, Message, RequestID string }
	require.NoError(t, json.Unmarshal(got.body, &body))
	require.Equal(t, name, body.Error, "%s", body.Message)
	require.Equal(t, "request-1", body.RequestID)
	return body.Message
}

// at is a record's path: its type's, and its URI percent-encoded.
func (w *world) at(key record.Key, rest ...string) string {
	path := "/" + w.rest.typeOf(key.Collection).name + "/" + url.PathEscape(key.String())
	for _, segment := range rest {
		path += "/" + segment
	}
	return path
}

func urisOf(views []view) []string {
	out := []string{}
	for _, v := range views {
		out = append(out, string(v.URI))
	}
	return out
}

// blockOf is a record as it is in a repository.
func blockOf(t *testing.T, data map[string]any) []byte {
	t.Helper()
	block, err := atdata.MarshalCBOR(data)
	require.NoError(t, err)
	return block
}

// counting counts the questions to the store.
type counting struct {
	*store.Reader
	asked int
}

func (c *counting) Get(ctx context.Context, key record.Key) (record.Record, error) {
	c.asked++
	return c.Reader.Get(ctx, key)
}

func (c *counting) LoadAll(ctx context.Context, keys []record.Key) (map[record.Key]record.Record, error) {
	c.asked++
	return c.Reader.LoadAll(ctx, keys)
}

func (c *counting) There(ctx context.Context, keys []record.Key) (map[record.Key]bool, error) {
	c.asked++
	return c.Reader.There(ctx, keys)
}

func (c *counting) Targets(ctx context.Context, sources []record.Key, paths []string, limit int) ([]store.Reference, error) {
	c.asked++
	return c.Reader.Targets(ctx, sources, paths, limit)
}

func (c *counting) ReferrersByCollection(ctx context.Context, target string, collections []syntax.NSID, limit int) ([]store.Group, error) {
	c.asked++
	return c.Reader.ReferrersByCollection(ctx, target, collections, limit)
}
