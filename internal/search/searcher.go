package search

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"
	"golang.org/x/sync/singleflight"

	"github.com/layers-pub/layers-appview/internal/query"
)

// accounts tells what must not be shown; PostgreSQL knows it first.
type accounts interface {
	Inactive(ctx context.Context, dids []syntax.DID) (map[syntax.DID]bool, error)
}

// Searcher answers questions from the indexes. It is safe for concurrent use.
type Searcher struct {
	client   *Client
	schema   *query.Schema
	accounts accounts
	// Share is for how long first pages are answered from one view of the indexes. Views
	// cost the server more than a question that finds little; but what has come into the
	// indexes meanwhile is not found. Zero opens a view for each.
	Share time.Duration

	shared  sync.Map // by collections, the sharedView that was opened last
	opening singleflight.Group
}

// sharedView is one that no walk closes: it runs out.
type sharedView struct {
	id    string
	until time.Time
}

// NewSearcher makes a searcher. The schema is that of the mappings which the indexes
// were made with.
func NewSearcher(client *Client, schema *query.Schema, accounts accounts) *Searcher {
	return &Searcher{client: client, schema: schema, accounts: accounts}
}

// view is where a walk through the pages of an answer has come to. The server keeps
// the indexes as they were at its begin for as long as keepAlive after each page.
type view struct {
	ID    string          `json:"v"`
	After json.RawMessage `json:"a,omitempty"` // the last hit's sort values
	Total query.Total     `json:"t"`
}

// Search answers a question. Errors are those of [query.Schema.Prepare],
// [query.ErrCursorExpired], or of the server. Hits of accounts that have become
// inactive are left out, so a page can have fewer than Limit and still not be the
// last. Facets and Total may count them for the seconds until the index has followed.
func (s *Searcher) Search(ctx context.Context, q query.Question) (query.Answer, error) {
	plan, err := s.schema.Prepare(q)
	if err != nil {
		return query.Answer{}, err
	}
	if !plan.First {
		return s.next(ctx, plan)
	}
	answer, err := s.first(ctx, plan)
	if gone(err) { // an index that has just been replaced
		answer, err = s.first(ctx, plan)
	}
	return answer, unanswered(err)
}

// first answers with the first page.
func (s *Searcher) first(ctx context.Context, plan *query.Plan) (query.Answer, error) {
	id, err := s.open(ctx, plan.Collections)
	if err != nil {
		return query.Answer{}, err
	}
	v := view{ID: id}
	answer, err := s.page(ctx, plan, v)
	if gone(err) {
		s.shared.Delete(viewKey(plan.Collections))
	}
	if answer.Cursor == "" && s.Share == 0 {
		s.close(ctx, v)
	}
	return answer, err
}

// open opens a view of collections, or takes one that is young enough. Who gives up
// does not end the opening for the others.
func (s *Searcher) open(ctx context.Context, collections []syntax.NSID) (id string, err error) {
	if s.Share == 0 {
		return s.openView(ctx, collections)
	}
	key := viewKey(collections)
	if id, ok := s.young(key); ok {
		return id, nil
	}
	opened := s.opening.DoChan(key, func() (any, error) {
		if id, ok := s.young(key); ok { // another opening has just ended
			return id, nil
		}
		until := time.Now().Add(s.Share)
		opening, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTime)
		defer cancel()
		id, err := s.openView(opening, collections)
		if err == nil {
			s.shared.Store(key, sharedView{id, until})
		}
		return id, err
	})
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case result := <-opened:
		if result.Err != nil {
			return "", result.Err
		}
		return result.Val.(string), nil
	}
}

// young is a shared view that may still be taken.
func (s *Searcher) young(key string) (id string, ok bool) {
	v, ok := s.shared.Load(key)
	if !ok || !time.Now().Before(v.(sharedView).until) {
		return "", false
	}
	return v.(sharedView).id, true
}

const openTime = 10 * time.Second // for a view that several wait for

func viewKey(collections []syntax.NSID) string {
	var key strings.Builder
	for _, c := range collections {
		key.WriteString(string(c))
		key.WriteByte(' ')
	}
	return key.String()
}

func (s *Searcher) openView(ctx context.Context, collections []syntax.NSID) (id string, err error) {
	ignore := true // a collection whose index is not there yet has no hits
	err = s.client.do(ctx, esapi.OpenPointInTimeRequest{Index: s.aliases(collections), KeepAlive: keepAlive, IgnoreUnavailable: &ignore}, &struct {
		ID *string `json:"id"`
	}{&id})
	if err != nil {
		return "", fmt.Errorf("elasticsearch: search: open view: %w", err)
	}
	return id, nil
}

func (s *Searcher) next(ctx context.Context, plan *query.Plan) (query.Answer, error) {
	var v view
	if err := plan.Position(&v); err != nil {
		return query.Answer{}, err
	}
	answer, err := s.page(ctx, plan, v)
	var status *statusError
	switch {
	case gone(err):
		return query.Answer{}, query.ErrCursorExpired
	case errors.As(err, &status) && status.Status == http.StatusBadRequest:
		return query.Answer{}, query.ErrCursor
	}
	// The view stays open after the last page, until it runs out: whoever was given the
	// same first page walks through the same view.
	return answer, unanswered(err)
}

// page asks for one hit more than it gives, to know whether there are more.
func (s *Searcher) page(ctx context.Context, plan *query.Plan, v view) (query.Answer, error) {
	body := request(plan)
	body["pit"] = map[string]any{"id": v.ID, "keep_alive": keepAlive}
	if v.After != nil {
		body["search_after"] = v.After
	}
	partial := false // a shard that does not answer must be an error, not a gap
	req := esapi.SearchRequest{Body: jsonBody(body), AllowPartialSearchResults: &partial}
	if plan.Ranked() {
		req.SearchType = "dfs_query_then_fetch" // so that scores of several indexes compare
	}
	found := &found{marker: plan.Marker(), plan: plan}
	if err := s.client.do(ctx, req, found); err != nil {
		return query.Answer{}, fmt.Errorf("elasticsearch: search: %w", err)
	}
	answer := query.Answer{Hits: found.hits, Total: v.Total}
	if plan.First {
		answer.Total, answer.Facets = found.total, found.facets
	}
	if len(found.hits) > plan.Limit {
		answer.Hits = found.hits[:plan.Limit]
		cursor, err := plan.NextCursor(view{ID: found.view, After: found.sorts[plan.Limit-1], Total: answer.Total})
		if err != nil {
			return query.Answer{}, err
		}
		answer.Cursor = cursor
	}
	return s.visible(ctx, answer)
}

// visible leaves out the hits of inactive accounts.
func (s *Searcher) visible(ctx context.Context, answer query.Answer) (query.Answer, error) {
	owner := func(h query.Hit) syntax.DID { return syntax.DID(h.URI.Authority()) }
	dids := make([]syntax.DID, len(answer.Hits))
	for i, h := range answer.Hits {
		dids[i] = owner(h)
	}
	slices.Sort(dids)
	hidden, err := s.accounts.Inactive(ctx, slices.Compact(dids))
	if err != nil {
		return query.Answer{}, fmt.Errorf("look for inactive accounts among the hits: %w", err)
	}
	answer.Hits = slices.DeleteFunc(answer.Hits, func(h query.Hit) bool { return hidden[owner(h)] })
	return answer, nil
}

// Complete finds records by the beginning of a word of their title.
func (s *Searcher) Complete(ctx context.Context, c query.Completion) (query.Titles, error) {
	collections, words, limit, err := c.Prepare(s.schema)
	if err != nil {
		return query.Titles{}, err
	}
	ask := func() (*found, error) {
		ignore, partial := true, false
		f := &found{}
		err := s.client.do(ctx, esapi.SearchRequest{
			Index: s.aliases(collections), IgnoreUnavailable: &ignore, AllowPartialSearchResults: &partial,
			Body: jsonBody(map[string]any{
				"query": filtered(map[string]any{"prefix": map[string]any{"value.$complete": words}}),
				"size":  query.MaxCompleted, "sort": order(false), "_source": shown, "track_total_hits": false,
			}),
		}, f)
		return f, err
	}
	f, err := ask()
	if gone(err) {
		f, err = ask()
	}
	if err != nil {
		return query.Titles{}, unanswered(fmt.Errorf("elasticsearch: complete: %w", err))
	}
	answer, err := s.visible(ctx, query.Answer{Hits: f.hits})
	if err != nil {
		return query.Titles{}, err
	}
	return query.Titles{Completions: query.Complete(answer.Hits, words, limit)}, nil
}

func (s *Searcher) aliases(collections []syntax.NSID) []string {
	out := make([]string, len(collections))
	for i, c := range collections {
		out[i] = s.client.Alias(c)
	}
	return out
}

// close frees a view that no cursor leads to. A failure is no matter: it runs out.
func (s *Searcher) close(ctx context.Context, v view) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = s.client.do(closing, esapi.ClosePointInTimeRequest{Body: jsonBody(map[string]any{"id": v.ID})}, nil)
}

// unanswered marks the errors of a server that is away or overloaded.
func unanswered(err error) error {
	var status *statusError
	var away net.Error
	if errors.Is(err, context.Canceled) {
		return err
	}
	overloaded := errors.As(err, &status) && (status.Status >= http.StatusInternalServerError || status.Status == http.StatusTooManyRequests)
	if overloaded || errors.As(err, &away) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errPartial) {
		return fmt.Errorf("%w: %w", query.ErrUnavailable, err)
	}
	return err
}

// gone tells whether an error says that a view or an index is not there any more.
func gone(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return false
	}
	types := []string{status.Cause.Type}
	for _, root := range status.Cause.Root {
		types = append(types, root.Type)
	}
	return slices.ContainsFunc(types, func(t string) bool {
		return t == "index_not_found_exception" || t == "search_context_missing_exception" || t == "no_shard_available_action_exception"
	})
}
