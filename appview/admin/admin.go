// Package admin is what operators can do over HTTP: look at dead letters and have them
// tried again, have repositories fetched whole, and have projections built anew. It is
// served on the operator's address of the indexer, since the API may only read, and to
// who proves to be an operator. What is changed is kept in the store's log of actions.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/caller"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Deps are what the routes work with.
type Deps struct {
	Operators *caller.Operators
	Log       *store.AdminLog
	Letters   *store.DeadLetters
	Resyncs   *store.Resyncs
	Reindex   Reindexer
	Version   string
	Logger    *slog.Logger
}

// Reindexer builds projections anew, in the background. It notes the end of what it
// was told to do in the log of actions.
type Reindexer interface {
	// Start begins, or goes on with what an earlier process has left; nil stands for all
	// projections that are configured. It returns [ErrRunning] or [ErrUnknownTarget].
	Start(ctx context.Context, targets []record.Target, by store.AdminAction) error
	// Status tells of all projections that are being built, and of the last that was.
	Status(ctx context.Context) (Reindex, error)
	// Abort stops it, and drops what has been built.
	Abort(ctx context.Context) error
}

var (
	// ErrRunning says that a projection is being built already.
	ErrRunning = errors.New("a projection is being built already")
	// ErrUnknownTarget says that there is no such projection.
	ErrUnknownTarget = errors.New("no such projection is configured")
)

// Reindex is how far a build has come.
type Reindex struct {
	Running     bool         `json:"running"`             // in this process
	StartedAt   *time.Time   `json:"startedAt,omitempty"` // of the last one in this process
	EndedAt     *time.Time   `json:"endedAt,omitempty"`
	Error       string       `json:"error,omitempty"`       // that it ended with
	Differences *int64       `json:"differences,omitempty"` // found by the comparison at its end
	Projections []Projection `json:"projections"`
}

// Projection is one that is being built, by whatever process.
type Projection struct {
	Target    string    `json:"target"`
	StartedAt time.Time `json:"startedAt"`
	Done      int64     `json:"done"`  // records
	Total     int64     `json:"total"` // records
	Step      string    `json:"step"`  // fill, follow or end
}

// Service answers the routes.
type Service struct {
	deps   Deps
	routes []route
}

// New makes the service.
func New(deps Deps) *Service {
	s := &Service{deps: deps}
	s.routes = s.table()
	return s
}

// prefix is where the routes are.
const prefix = "/api/v1/admin"

// Mount adds the routes, each of which asks for an operator's token.
func (s *Service) Mount(e *echo.Echo) {
	for _, r := range s.routes {
		e.Add(r.method, prefix+r.path, s.forOperators(r.answer))
	}
}

// forOperators lets operators in alone. Nothing of an answer is kept by anybody.
func (s *Service) forOperators(answer answerer) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		who, err := s.deps.Operators.Identify(c.Request(), c.RealIP())
		if err != nil {
			s.deps.Logger.WarnContext(c.Request().Context(), "an operator's route was refused", "route", c.Path(), "client", c.RealIP(),
				"requestId", requestID(c), "error", err)
			if c.Request().Header.Get(echo.HeaderAuthorization) == "" {
				c.Response().Header().Set(echo.HeaderWWWAuthenticate, "Bearer")
			}
			return err
		}
		status, body, err := answer(c, action{Context: c, who: who})
		if err != nil {
			return err
		}
		if body == nil {
			return c.NoContent(status)
		}
		return c.JSON(status, body)
	}
}

// action is a request of an operator.
type action struct {
	echo.Context
	who string
}

// noted is what is kept of the request.
func (a action) noted(name, subject string) store.AdminAction {
	return store.AdminAction{Actor: a.who, Via: store.ViaHTTP, Action: name, Subject: subject, RequestID: requestID(a.Context)}
}

func requestID(c echo.Context) string { return c.Response().Header().Get(echo.HeaderXRequestID) }

// answerer works an answer out: a status, and a body or nil.
type answerer func(echo.Context, action) (int, any, error)

// table is every route there is.
func (s *Service) table() []route {
	letters := []param{
		{"stage", "frame, verify, validate, store or project:TARGET"}, {"class", "the kind of failure"},
		{"did", "of this repository"}, {"collection", "of this collection"},
	}
	page := []param{{"limit", "1 to 200, default 50"}, {"before", "only those with a smaller ID, to go on from a page"}}
	return []route{
		{http.MethodGet, "/dlq", "Dead letters, newest first", append(letters, page...), s.listLetters},
		{http.MethodGet, "/dlq/:id", "A dead letter whole, with its bytes in base64", nil, s.showLetter},
		{http.MethodPost, "/dlq/:id/replay", "Have the running indexer put a dead letter through again", nil, s.replayLetter},
		{http.MethodPost, "/dlq/replay-all", "The same for all that the parameters choose", append(letters, param{"all", "true: every dead letter there is"}), s.replayLetters},
		{http.MethodDelete, "/dlq/:id", "Drop a dead letter", nil, s.dropLetter},
		{http.MethodPost, "/repos/:did/resync", "Have the running indexer fetch a repository whole", nil, s.resync},
		{http.MethodGet, "/reindex", "How far projections that are being built have come", nil, s.reindexStatus},
		{http.MethodPost, "/reindex", "Build projections anew from PostgreSQL, or go on with what was interrupted", []param{{"to", "tables, search, fulltext, graph or relations, comma-separated; default: all that are configured"}}, s.startReindex},
		{http.MethodDelete, "/reindex", "Stop building, and drop what has been built", nil, s.abortReindex},
		{http.MethodGet, "/actions", "What operators did, newest first", append([]param{{"actor", "who did it"}, {"action", "such as dlq.replay"}, {"requestId", "of this request or command"}}, page...), s.listActions},
		{http.MethodGet, "/openapi.json", "This description", nil, s.describe},
	}
}
