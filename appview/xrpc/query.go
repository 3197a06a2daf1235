package xrpc

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// get answers {uri, cid, value} for the record that the parameter uri names.
func (s *Service) get(ep *Endpoint) echo.HandlerFunc {
	return func(c echo.Context) error {
		args, err := ep.Parse(c.Request().URL.RawQuery)
		if err != nil {
			return err
		}
		asked, err := s.target(c.Request().Context(), &args)
		if err != nil {
			return err
		}
		if asked.Collection != ep.query.Collection {
			return InvalidRequest("parameter %q: expected a record of the collection %s, got one of %s", "uri", ep.query.Collection, Quote(string(asked.Collection)))
		}
		return s.answerRecord(c, asked, "RecordNotFound", AppendRecord)
	}
}

// target is the record that a request asks for.
type target struct {
	record.Key
	byHandle bool // it named the repository by handle
}

// target reads the parameter uri, whose repository may be given by handle.
func (s *Service) target(ctx context.Context, args *Arguments) (target, error) {
	text, _ := args.Text("uri")
	repo, collection, rkey := SplitURI(syntax.ATURI(text))
	if rkey == "" {
		return target{}, InvalidRequest("parameter %q: expected the AT-URI of one record, with collection and record key, got %s", "uri", Quote(text))
	}
	did, err := s.handles.did(ctx, "uri", repo)
	return target{record.Key{DID: did, Collection: collection, Rkey: rkey}, repo.IsHandle()}, err
}

// answerRecord looks a record up and sends what fill makes of it, or missing, the
// error that the query's lexicon declares for a record that is not there.
func (s *Service) answerRecord(c echo.Context, asked target, missing string, fill func([]byte, *record.Record) []byte) error {
	found, err := s.reads.Get(c.Request().Context(), asked.Key)
	if errors.Is(err, store.ErrNotFound) {
		return declared(missing, "the index holds no record at %s", asked.Key)
	}
	if err != nil {
		return err
	}
	// The CID stands for the whole answer, except that a handle may pass to
	// another repository.
	if !asked.byHandle && Unchanged(c, found.CID) {
		return c.NoContent(http.StatusNotModified)
	}
	return AnswerJSON(c, func(b []byte) []byte { return fill(b, &found) })
}

// list answers a page of {uri, cid, value}, newest first.
func (s *Service) list(ep *Endpoint) echo.HandlerFunc {
	return func(c echo.Context) error {
		args, err := ep.Parse(c.Request().URL.RawQuery)
		if err != nil {
			return err
		}
		list, err := s.Listing(c.Request().Context(), &args)
		if err != nil {
			return err
		}
		page, cursor, err := list.Page(c.Request().Context())
		if err != nil {
			return err
		}
		return AnswerJSON(c, func(b []byte) []byte {
			return appendPage(b, ep.query.Items, page, cursor, AppendRecord)
		})
	}
}

// Listing is a list that a request asks for, and how far it has been read.
type Listing struct {
	reads reader
	scope scope
	query store.Query
}

// Listing is the list of the endpoint's collection that the arguments describe.
func (s *Service) Listing(ctx context.Context, args *Arguments) (*Listing, error) {
	filters, err := s.filters(ctx, args)
	if err != nil {
		return nil, err
	}
	q := args.ep.query
	l := &Listing{reads: s.reads, scope: newScope(q.NSID, filters), query: store.Query{Collection: q.Collection, Limit: args.Limit()}}
	if l.query.After, err = args.after(l.scope); err != nil {
		return nil, err
	}
	for _, f := range filters {
		if f.repo {
			did := syntax.DID(f.values[0])
			l.query.Repo = &did
			continue
		}
		l.query.Match = append(l.query.Match, store.Match{Name: f.property, Values: f.values})
	}
	return l, nil
}

// Page reads the next page. The cursor continues after it; an empty one says that
// this was the last, and that there is nothing to call Page for any more.
func (l *Listing) Page(ctx context.Context) (records []record.Record, cursor string, err error) {
	page, err := l.reads.List(ctx, l.query)
	if err != nil {
		return nil, "", err
	}
	l.query.After = page.Next
	return page.Records, nextCursor(l.scope, page), nil
}

// filter is a list parameter that was given: a record matches if the property
// has any of the values.
type filter struct {
	name     string // of the parameter
	property string // of the record
	repo     bool   // filters on the repository instead; values is one DID
	values   []string
}

// filters are the list's filters as the store compares them: handles turned into
// DIDs, and values in an order of their own, so that the same question is the
// same scope however it is put.
func (s *Service) filters(ctx context.Context, args *Arguments) ([]filter, error) {
	var filters []filter
	for i, p := range args.ep.query.Params {
		given := args.given[i]
		if len(given) == 0 || (p.Filter == "" && !p.Repo) {
			continue
		}
		f := filter{name: p.Name, property: p.Filter, repo: p.Repo}
		for _, value := range given {
			values, err := s.comparable(ctx, p.Name, p.Format, value)
			if err != nil {
				return nil, err
			}
			f.values = append(f.values, values...)
		}
		slices.Sort(f.values)
		f.values = slices.Compact(f.values)
		filters = append(filters, f)
	}
	return filters, nil
}

// comparable gives the values that a record may have to match a parameter's
// value. An AT-URI whose repository is given by handle matches records that have
// it by DID, and those that themselves have it by that handle.
func (s *Service) comparable(ctx context.Context, name, format, value string) ([]string, error) {
	switch format {
	case "at-identifier":
		did, err := s.handles.did(ctx, name, syntax.AtIdentifier(value))
		return []string{string(did)}, err
	case "at-uri":
		uri, err := s.handles.uri(ctx, name, syntax.ATURI(value))
		if err != nil || string(uri) == value {
			return []string{value}, err
		}
		return []string{string(uri), value}, nil
	}
	return []string{value}, nil
}

// after is where the page begins: nil for the first.
func (a *Arguments) after(s scope) (*store.Position, error) {
	text, ok := a.Text("cursor")
	if !ok {
		return nil, nil
	}
	at, err := decodeCursor(text, s)
	switch {
	case errors.Is(err, errCursorForeign):
		return nil, InvalidRequest("parameter %q: cursor does not belong to this query: expected one from an earlier page with the same filters", "cursor")
	case err != nil:
		return nil, InvalidRequest("parameter %q: expected a cursor from an earlier page, got %s", "cursor", Quote(text))
	}
	return &at, nil
}

// nextCursor continues a page; empty after the last.
func nextCursor(s scope, page store.Page) string {
	if page.Next == nil {
		return ""
	}
	return encodeCursor(s, *page.Next)
}
