package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/lexicons"
)

// client asks the API as any XRPC client does.
type client struct {
	t    *testing.T
	base string
	http *http.Client
	gets map[syntax.NSID]syntax.NSID // collection to its get query
	list []*catalog.Query
}

// requests is how many requests the client has under way at once.
const requests = 8

func newClient(t *testing.T, base string) *client {
	t.Helper()
	known, err := catalog.Load(lexicons.FS)
	require.NoError(t, err)
	c := &client{
		t: t, base: base, gets: map[syntax.NSID]syntax.NSID{},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: requests}},
	}
	for _, q := range known.Queries() {
		switch q.Kind {
		case catalog.Get:
			c.gets[q.Collection] = q.NSID
		case catalog.List:
			c.list = append(c.list, q)
		}
	}
	require.Len(t, c.gets, 26)
	require.Len(t, c.list, 27)
	return c
}

// view is a record as answers have it.
type view struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// failure is an answer that is an error.
type failure struct {
	status  int
	Name    string `json:"error"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return fmt.Sprintf("%d %s: %s", f.status, f.Name, f.Message) }

// query asks and decodes the answer. An answer that is an error is a *failure.
func (c *client) query(nsid syntax.NSID, params url.Values, answer any) error {
	response, err := c.http.Get(c.base + "/xrpc/" + string(nsid) + "?" + params.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		f := &failure{status: response.StatusCode}
		if err := json.Unmarshal(raw, f); err != nil || f.Name == "" {
			return fmt.Errorf("status %d without an XRPC error: %q", response.StatusCode, raw)
		}
		return f
	}
	return json.Unmarshal(raw, answer)
}

func (c *client) get(key record.Key) (view, error) {
	var v view
	err := c.query(c.gets[key.Collection], url.Values{"uri": {key.String()}}, &v)
	return v, err
}

// each calls do for every key, several at a time, and gathers what is wrong.
func each(keys []record.Key, do func(record.Key) error) (diff differences) {
	work := make(chan record.Key)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range requests {
		workers.Go(func() {
			for key := range work {
				if err := do(key); err != nil {
					mu.Lock()
					diff.add("%s: %v", key, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, key := range keys {
		work <- key
	}
	close(work)
	workers.Wait()
	return diff
}

// gettable requires that each record's get query answers with it, identical.
func (c *client) gettable(want truth) {
	c.t.Helper()
	diff := each(want.keys(), func(key record.Key) error {
		v, err := c.get(key)
		if err != nil {
			return err
		}
		if v.URI != key.String() {
			return fmt.Errorf("answers for %s", v.URI)
		}
		return simulated(want[key]).sameValue(v.Value, v.CID)
	})
	diff.require(c.t, fmt.Sprintf("get queries for %d records", len(want)))
}

// gone requires that no get query finds these records.
func (c *client) gone(keys []record.Key) {
	c.t.Helper()
	diff := each(keys, func(key record.Key) error {
		v, err := c.get(key)
		if err == nil {
			return fmt.Errorf("is still there, with the CID %s", v.CID)
		}
		if f := (*failure)(nil); !errors.As(err, &f) || f.Name != "RecordNotFound" || f.status != http.StatusBadRequest {
			return fmt.Errorf("expected RecordNotFound with status 400: %w", err)
		}
		return nil
	})
	diff.require(c.t, fmt.Sprintf("get queries for %d records that are gone", len(keys)))
}

// walk reads a list to its end, page by page.
func (c *client) walk(q *catalog.Query, params url.Values, limit int) ([]view, error) {
	params = maps.Clone(params)
	params.Set("limit", strconv.Itoa(limit))
	var all []view
	for {
		var page map[string]json.RawMessage
		if err := c.query(q.NSID, params, &page); err != nil {
			return nil, err
		}
		var items []view
		if err := json.Unmarshal(page[q.Items], &items); err != nil {
			return nil, fmt.Errorf("%s of the answer: %w", q.Items, err)
		}
		if len(items) > limit {
			return nil, fmt.Errorf("a page of %d records, asked for %d", len(items), limit)
		}
		all = append(all, items...)
		if page["cursor"] == nil {
			return all, nil
		}
		var cursor string
		if err := json.Unmarshal(page["cursor"], &cursor); err != nil || cursor == "" {
			return nil, fmt.Errorf("cursor is %s", page["cursor"])
		}
		if len(items) == 0 {
			return nil, fmt.Errorf("a cursor after an empty page")
		}
		params.Set("cursor", cursor)
	}
}

// maxScopes bounds how many scopes of a list are walked: as many repositories,
// expressions, corpora, ...
const maxScopes = 40

// listed requires that each list query, in each scope that has records, answers
// with all of them and no other, whatever the page size; and that each optional
// filter leaves exactly those that have the value.
func (c *client) listed(want truth, handles map[syntax.DID]syntax.Handle) {
	c.t.Helper()
	for _, q := range c.list {
		part := values(c.t, want.in(q.Collection))
		required, optional := c.filters(q)
		scopes := groups(part, required)
		if len(scopes) == 0 {
			c.t.Errorf("%s: the network has no record to list", q.NSID)
			continue
		}
		names := slices.Sorted(maps.Keys(scopes))
		for i, scope := range names[:min(len(names), maxScopes)] {
			params := url.Values{required.param: {scope}}
			c.lists(q, params, scopes[scope], []int{100, 7}[i%2])
			if required.param == "repo" {
				params.Set("repo", string(handles[syntax.DID(scope)]))
				c.lists(q, params, scopes[scope], 100)
			}
			for _, filter := range optional {
				narrower := groups(scopes[scope], filter)
				if i >= 3 || len(narrower) == 0 {
					continue
				}
				term := slices.Sorted(maps.Keys(narrower))[i%len(narrower)]
				c.lists(q, url.Values{required.param: {scope}, filter.param: {term}}, narrower[term], 100)
			}
		}
	}
}

// lists walks one list and compares it.
func (c *client) lists(q *catalog.Query, params url.Values, want map[record.Key]listable, limit int) {
	c.t.Helper()
	what := fmt.Sprintf("%s with %s, %d a page", q.NSID, params.Encode(), limit)
	views, err := c.walk(q, params, limit)
	require.NoError(c.t, err, what)
	var diff differences
	found := map[record.Key]view{}
	for _, v := range views {
		key, err := record.ParseKey(syntax.ATURI(v.URI))
		require.NoError(c.t, err, what)
		if _, twice := found[key]; twice {
			diff.add("twice: %s", key)
		}
		found[key] = v
	}
	compareKeys(&diff, want, found)
	for key, item := range want {
		if v, ok := found[key]; ok {
			if err := item.entry.sameValue(v.Value, v.CID); err != nil {
				diff.add("%s: %v", key, err)
			}
		}
	}
	diff.require(c.t, what)
}

// filter is a list parameter and the property of the record that it looks at.
type filter struct{ param, property string }

// filters tells the parameters of a list. Each list has one that it requires.
func (c *client) filters(q *catalog.Query) (required filter, optional []filter) {
	c.t.Helper()
	for _, p := range q.Params {
		f := filter{p.Name, p.Name}
		if q.NSID == "pub.layers.changelog.listByCollection" && p.Name == "collection" {
			f.property = "subjectCollection"
		}
		switch {
		case p.Name == "limit" || p.Name == "cursor":
		case p.Required:
			require.Empty(c.t, required.param, "%s requires two parameters", q.NSID)
			required = f
		default:
			optional = append(optional, f)
		}
	}
	require.NotEmpty(c.t, required.param, q.NSID)
	return required, optional
}

// listable is a record with its value, by which lists filter.
type listable struct {
	entry simulated
	value map[string]any
}

func values(t *testing.T, part truth) map[record.Key]listable {
	t.Helper()
	all := map[record.Key]listable{}
	for key, entry := range part {
		value, err := atdata.UnmarshalCBOR(entry.CBOR)
		require.NoError(t, err)
		all[key] = listable{simulated(entry), value}
	}
	return all
}

// groups sorts records by what a filter finds them under. Terms that no parameter
// can carry, with U+0000, are left out.
func groups(part map[record.Key]listable, f filter) map[string]map[record.Key]listable {
	all := map[string]map[record.Key]listable{}
	for key, item := range part {
		for _, term := range terms(key, item.value, f) {
			if strings.ContainsRune(term, 0) || len(term) > 2000 {
				continue
			}
			if all[term] == nil {
				all[term] = map[record.Key]listable{}
			}
			all[term][key] = item
		}
	}
	return all
}

// terms are what a filter finds one record under: its repository; the property, or
// each of its elements; the record that an object reference names.
func terms(key record.Key, value map[string]any, f filter) []string {
	if f.param == "repo" {
		return []string{string(key.DID)}
	}
	elements, ok := value[f.property].([]any)
	if !ok {
		elements = []any{value[f.property]}
	}
	var all []string
	for _, element := range elements {
		if reference, ok := element.(map[string]any); ok {
			element = reference["recordRef"]
		}
		if text, ok := element.(string); ok {
			all = append(all, text)
		}
	}
	return all
}
