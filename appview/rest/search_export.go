package rest

import (
	"context"
	"slices"

	"github.com/layers-pub/layers-appview/internal/query"
)

// searchExport is the row that streams all that another row finds.
func (s *Service) searchExport(of Route, question func(*Call) (query.Question, error)) Route {
	return Route{
		Path: of.Path + "/export", ID: of.ID + ".export", Stream: true,
		Summary:     of.Summary + ", all hits, one a line",
		Description: "All that `" + of.Path + "` has in pages, in the same order, as the index was when the export began. The last line has `end`: complete, or error with the `cursor` to go on with, which is good for two minutes. Without such a line the answer was cut off.",
		Params:      slices.DeleteFunc(slices.Clone(of.Params), func(p Param) bool { return p.Name == "limit" }),
		Answer:      Answer{Description: "Lines of JSON.", Lines: hitLineSchema()},
		Handler:     s.streamHits(question),
	}
}

// streamHits streams all hits from where the cursor is; with a limit, no more than one page.
func (s *Service) streamHits(question func(*Call) (query.Question, error)) Handler {
	return func(c *Call) error {
		q, err := s.askedSoon(c, question)
		if err != nil {
			return err
		}
		q.Limit, q.Cursor, q.Facets = query.MaxLimit, c.Word("cursor"), nil
		_, limited := c.Text("limit")
		if limited {
			q.Limit = c.Limit()
		}
		return s.streamed(c, func(out *stream) error {
			for {
				var page searched
				err := out.ask(func(ctx context.Context) (err error) {
					page, err = s.ask(ctx, q)
					return err
				})
				if err != nil {
					return err
				}
				out.degraded, out.incomplete = out.degraded || page.Degraded, out.incomplete || page.Incomplete
				for _, hit := range page.Hits {
					if err := out.item(hit); err != nil {
						return err
					}
				}
				if err := out.flush(); err != nil {
					return err
				}
				q.Cursor, out.cursor = page.Cursor, page.Cursor
				if page.Cursor == "" || limited {
					return nil
				}
			}
		})
	}
}

// askedSoon makes a question in the time of a part of a stream, since it may take a look
// into the store.
func (s *Service) askedSoon(c *Call, question func(*Call) (query.Question, error)) (query.Question, error) {
	whole := c.Request()
	ctx, cancel := context.WithTimeout(c.Ctx(), partTime)
	defer cancel()
	c.SetRequest(whole.WithContext(ctx))
	defer c.SetRequest(whole)
	return question(c)
}
