package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/internal/record"
)

// Cache says for how long a route's answers may be given again, and what ends that
// earlier. Such a route's handler answers by [Call.Answer] alone, and looks at nothing
// of the request but its parameters. First pages alone are kept, and no answer to a
// question that names a repository by its handle.
type Cache struct {
	For time.Duration // zero for never
	// Of are the collections that an answer follows from; nil for any. A name that
	// [store.Changes.Note] notes may be among them.
	Of []syntax.NSID
	// By narrows Of by the parameters; nil for no matter what they are.
	By func(*Call) []syntax.NSID
	// From is the projection that is read; empty for the records' own tables.
	From record.Target
}

// How long answers are kept, if nothing that they follow from changes before.
const (
	keepReferences = 5 * time.Minute
	keepFound      = time.Minute
)

// apart is what a call has that is answered for several clients at once.
type apart struct {
	ctx    context.Context
	answer cache.Answer
}

// degradable is an answer that may be less than what all stores would give.
type degradable interface{ isDegraded() bool }

// answer has a call answered: by what was kept, if the route allows it.
func (s *Service) answer(c *Call) error {
	r := c.route
	if r.Answer.Lines != nil && !r.Stream {
		c.Response().Header().Add(echo.HeaderVary, echo.HeaderAccept)
		if wantsLines(c.Context) {
			return r.Handler(c)
		}
	}
	q, ok := c.question()
	if s.cache == nil || !ok {
		return r.Handler(c)
	}
	// The client of the first who asks may be gone, and its echo.Context be another's,
	// while others still wait for the answer.
	request := c.Request().Clone(context.WithoutCancel(c.Ctx()))
	engine, args := c.Echo(), c.Arguments
	body, err := s.cache.Do(c.Ctx(), q, func(ctx context.Context) (cache.Answer, error) {
		own := &Call{Context: engine.NewContext(request.WithContext(ctx), noWriter{}), Arguments: args, route: r, apart: &apart{ctx: ctx}}
		err := r.Handler(own)
		return own.apart.answer, err
	})
	if err != nil {
		return err
	}
	return c.send(body)
}

// question is what the call asks; ok is false if its answer is for it alone.
func (c *Call) question() (q cache.Question, ok bool) {
	kept := &c.route.Cache
	text, named := c.Canonical()
	_, later := c.Text("cursor")
	if kept.For == 0 || !named || later {
		return q, false
	}
	q = cache.Question{Key: c.route.ID + " " + text, Route: c.route.ID, For: kept.For, Source: cache.Source{Collections: kept.Of, Projection: kept.From}}
	if kept.By != nil {
		q.Source.Collections = kept.By(c)
	}
	return q, true
}

// noWriter is for calls whose answer is not sent by them.
type noWriter struct{}

func (noWriter) Header() http.Header         { return http.Header{} }
func (noWriter) Write(p []byte) (int, error) { return len(p), nil }
func (noWriter) WriteHeader(int)             {}
