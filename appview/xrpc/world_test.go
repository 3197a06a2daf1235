package xrpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// member is a record of a test's world: what was written, for the test to work
// out itself what each query should answer.
type member struct {
	key     record.Key
	cid     syntax.CID
	data    map[string]any
	json    json.RawMessage
	created time.Time
}

// world is a store, what the test has put into it, and the service over it.
type world struct {
	catalog *catalog.Catalog
	service http.Handler
	writer  *store.Writer
	members map[syntax.NSID][]member // in the order that lists have
	commits int64                    // each batch of changes is one, with a rev of its own
}

// Three repositories, of which only the first two have handles.
var (
	repos   = []syntax.DID{"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", "did:web:c.example"}
	known   = []syntax.Handle{"alice.test", "bob.test"}
	perType = 170 // so that the common value of each filter has more than one page of 100
)

// newEmptyWorld is a world whose repositories have no records yet.
func newEmptyWorld(t *testing.T) *world {
	t.Helper()
	w := &world{catalog: loadCatalog(t), members: map[syntax.NSID][]member{}}
	db := storetest.New(t, layout.Partitions(w.catalog)...)
	w.writer = db.Writer(t, nil)
	w.service = serve(New(w.catalog, store.NewReader(db.Reads(t)), nil))
	var updates []store.RepoUpdate
	for i, did := range repos {
		update := store.RepoUpdate{DID: did}
		if i < len(known) {
			update.Handle = &known[i]
		}
		updates = append(updates, update)
	}
	w.apply(t, updates)
	return w
}

// newWorld is a world with records of some collections; none named stands for all.
func newWorld(t *testing.T, collections ...syntax.NSID) *world {
	t.Helper()
	w := newEmptyWorld(t)
	for _, c := range w.catalog.Collections() {
		if len(collections) == 0 || slices.Contains(collections, c.NSID) {
			w.add(t, w.variety(t, c, perType)...)
		}
	}
	return w
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
func (w *world) setActive(t *testing.T, did syntax.DID, active bool, status string) {
	t.Helper()
	w.apply(t, []store.RepoUpdate{{DID: did, Active: &active, Status: &status}})
}

// delete removes a record.
func (w *world) delete(t *testing.T, key record.Key) {
	t.Helper()
	w.apply(t, nil, store.Change{Action: record.Delete, Key: key})
	w.members[key.Collection] = slices.DeleteFunc(w.members[key.Collection], func(m member) bool { return m.key == key })
}

// add stores records and remembers them, instead of those of the same key.
func (w *world) add(t *testing.T, members ...member) {
	t.Helper()
	var changes []store.Change
	for i := range members {
		m := &members[i]
		block, err := atdata.MarshalCBOR(m.data)
		require.NoError(t, err)
		found, err := w.catalog.Check(m.key, block)
		require.NoError(t, err, "%s: %s", m.key, block)
		m.cid, m.json, m.created = cidOf(t, block), found.JSON, found.CreatedAt
		changes = append(changes, store.Change{
			Action: record.Create, Key: m.key, CID: m.cid, JSON: found.JSON, CreatedAt: found.CreatedAt, Filter: found.Filter, Refs: found.Refs, Links: found.Links,
		})
		list := slices.DeleteFunc(w.members[m.key.Collection], func(old member) bool { return old.key == m.key })
		w.members[m.key.Collection] = append(list, *m)
	}
	w.apply(t, nil, changes...)
	for _, list := range w.members {
		slices.SortFunc(list, inListOrder)
	}
}

// inListOrder is newest first, then by repository and record key.
func inListOrder(a, b member) int {
	return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.key.DID, b.key.DID), cmp.Compare(a.key.Rkey, b.key.Rkey))
}

func cidOf(t *testing.T, block []byte) syntax.CID {
	t.Helper()
	id, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	require.NoError(t, err)
	return syntax.CID(id.String())
}

// variety makes n records of a collection in all repositories: in each, every
// property that some list filters on has one of a few values, or is left out
// where it may be; and some are created in the same moment.
func (w *world) variety(t *testing.T, c *catalog.Collection, n int) []member {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	maker := fixture.New(uint64(len(w.members)))
	members := make([]member, n)
	for i := range members {
		given := map[string]any{}
		for _, f := range filtersOf(c) {
			given[f.Name] = f.pick(rng, c.Schema.Property(f.Name))
		}
		moment := time.Date(2025, 1, 1, 0, 0, i/3, 0, time.UTC)
		if c.Schema.Property("createdAt") != nil {
			given["createdAt"] = moment.Format(time.RFC3339)
		}
		members[i] = member{
			key:  record.Key{DID: repos[common(rng, len(repos))], Collection: c.NSID, Rkey: syntax.RecordKey(fmt.Sprintf("r%03d", i))},
			data: maker.Record(c.NSID, given),
		}
	}
	return members
}

// common picks 0 most of the time, so that one value is on more than a page.
func common(rng *rand.Rand, n int) int {
	if rng.IntN(10) < 8 {
		return 0
	}
	return 1 + rng.IntN(n-1)
}

type listFilter struct{ catalog.Filter }

// filtersOf are the properties that any list of the collection filters on.
func filtersOf(c *catalog.Collection) []listFilter {
	byName := map[string]listFilter{}
	for _, l := range c.Lists {
		for _, f := range slices.Concat(l.Required, l.Optional) {
			byName[f.Name] = listFilter{f}
		}
	}
	return slices.SortedFunc(valuesOf(byName), func(a, b listFilter) int { return strings.Compare(a.Name, b.Name) })
}

func valuesOf[K comparable, V any](m map[K]V) func(func(V) bool) {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// values are the few that a filtered property has in the test's world.
func (f listFilter) values(p *catalog.Property) []string {
	s := p.Schema
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
		return []string{
			"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/pub.layers.expression.expression/" + strings.Repeat("~", 512),
			"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/pub.layers.expression.expression/b",
			"at://did:web:" + strings.Repeat("long.", 120) + "example/pub.layers.expression.expression/c",
		}
	case s.Format == "nsid":
		return []string{"pub.layers.corpus.corpus", "pub.layers.media.media", "com.example.thing"}
	case s.Format == "language":
		return []string{"yo", "en", "pt-BR"}
	case s.Format == "":
		return []string{"common", "rare & <odd>; \u65e5\u672c+%", ""}
	}
	return []string{"https://a.example/", "https://b.example/", "https://c.example/"}
}

// pick chooses a value for the property, in the form that a record has it; nil
// leaves it out.
func (f listFilter) pick(rng *rand.Rand, p *catalog.Property) any {
	if !p.Required && rng.IntN(10) == 0 {
		return nil
	}
	values := f.values(p)
	one := func() any {
		v := values[common(rng, len(values))]
		if f.ObjectRef {
			return map[string]any{"recordRef": v}
		}
		return v
	}
	if !f.Array {
		return one()
	}
	list := []any{one()}
	for range rng.IntN(3) {
		list = append(list, one())
	}
	return list
}

// has works out whether a record has the value where a filter looks for it.
func (f listFilter) has(m *member, value string) bool {
	is := func(v any) bool {
		if ref, ok := v.(map[string]any); ok && f.ObjectRef {
			v = ref["recordRef"]
		}
		text, ok := v.(string)
		return ok && text == value
	}
	if list, ok := m.data[f.Name].([]any); ok {
		return slices.ContainsFunc(list, is)
	}
	return is(m.data[f.Name])
}

// view is {uri, cid, value} in an answer, the value as it came.
type view struct {
	URI   string
	CID   string
	Value json.RawMessage
}

// page is the answer of a list query.
type page struct {
	items  []view
	cursor string // empty for none
}

// list asks for one page and checks its form.
func (w *world) list(t *testing.T, q *catalog.Query, params url.Values) page {
	t.Helper()
	res := ask(t, w.service, "GET", "/xrpc/"+string(q.NSID)+"?"+params.Encode())
	require.Equal(t, 200, res.Code, res.Body)
	var body map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(res.Body.Bytes(), &body))
	var p page
	require.NoError(t, json.Unmarshal(body[q.Items], &p.items))
	require.NotNil(t, p.items, "an empty page is an empty array")
	if cursor, ok := body["cursor"]; ok {
		require.NoError(t, json.Unmarshal(cursor, &p.cursor))
		require.NotEmpty(t, p.cursor, "an empty cursor")
	}
	delete(body, q.Items)
	delete(body, "cursor")
	require.Empty(t, body)
	return p
}

// walk asks for pages until there is no cursor.
func (w *world) walk(t *testing.T, q *catalog.Query, params url.Values, limit int) []view {
	t.Helper()
	params = cloneParams(params)
	params.Set("limit", fmt.Sprint(limit))
	var all []view
	for {
		p := w.list(t, q, params)
		require.LessOrEqual(t, len(p.items), limit)
		all = append(all, p.items...)
		if p.cursor == "" {
			return all
		}
		require.Len(t, p.items, limit, "a page that is not the last is full")
		params.Set("cursor", p.cursor)
	}
}

func cloneParams(params url.Values) url.Values {
	out := url.Values{}
	for name, values := range params {
		out[name] = slices.Clone(values)
	}
	return out
}

// expect works out by brute force what a list answers.
func (w *world) expect(q *catalog.Query, params url.Values) []string {
	c, _ := w.catalog.Collection(q.Collection)
	uris := []string{}
	for i := range w.members[q.Collection] {
		m := &w.members[q.Collection][i]
		if matchesAll(c, q, m, params) {
			uris = append(uris, m.key.String())
		}
	}
	return uris
}

func matchesAll(c *catalog.Collection, q *catalog.Query, m *member, params url.Values) bool {
	for _, p := range q.Params {
		values, ok := params[p.Name]
		switch {
		case !ok:
			continue
		case p.Repo:
			if string(m.key.DID) != values[0] {
				return false
			}
		case p.Filter != "":
			f := filtersOf(c)[slices.IndexFunc(filtersOf(c), func(f listFilter) bool { return f.Name == p.Filter })]
			if !slices.ContainsFunc(values, func(v string) bool { return f.has(m, v) }) {
				return false
			}
		}
	}
	return true
}

func uris(views []view) []string {
	out := []string{}
	for _, v := range views {
		out = append(out, v.URI)
	}
	return out
}

// sameValue asserts that a value in an answer is the record as it was written:
// the same bytes as stored, and the same CID once encoded as DAG-CBOR again.
func sameValue(t *testing.T, m *member, got view) {
	t.Helper()
	require.Equal(t, m.key.String(), got.URI)
	require.Equal(t, string(m.cid), got.CID)
	require.True(t, bytes.Equal(m.json, got.Value), "%s: stored\n%s\nserved\n%s", m.key, m.json, got.Value)
	data, err := atdata.UnmarshalJSON(got.Value)
	require.NoError(t, err)
	block, err := atdata.MarshalCBOR(data)
	require.NoError(t, err)
	require.Equal(t, m.cid, cidOf(t, block), "%s: the value served has another CID", m.key)
}
