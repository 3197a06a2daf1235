package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/store"
)

// letter is a dead letter as operators see it.
type letter struct {
	ID         int64     `json:"id"`
	CreatedAt  time.Time `json:"createdAt"`
	Host       string    `json:"host,omitempty"`
	Seq        int64     `json:"seq,omitempty"`
	DID        string    `json:"did,omitempty"`
	Collection string    `json:"collection,omitempty"`
	Rkey       string    `json:"rkey,omitempty"`
	Rev        string    `json:"rev,omitempty"`
	CID        string    `json:"cid,omitempty"`
	Stage      string    `json:"stage"`
	Class      string    `json:"class,omitempty"`
	Path       string    `json:"path,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Expected   string    `json:"expected,omitempty"`
	Received   string    `json:"received,omitempty"`
	Requested  bool      `json:"requested"` // it is to be put through again
	Attempts   int       `json:"attempts"`
	Outcome    string    `json:"outcome,omitempty"` // of the last attempt
	Raw        []byte    `json:"raw,omitempty"`
}

func letterOf(d store.DeadLetter, raw []byte) letter {
	return letter{
		ID: d.ID, CreatedAt: d.CreatedAt.UTC(), Host: d.Host, Seq: d.Seq, DID: string(d.DID), Collection: string(d.Collection), Rkey: string(d.Rkey),
		Rev: string(d.Rev), CID: string(d.CID), Stage: d.Stage, Class: d.Class, Path: d.Path, Reason: d.Reason, Expected: d.Expected, Received: d.Received,
		Requested: d.Requested, Attempts: d.Attempts, Outcome: d.Outcome, Raw: raw,
	}
}

func (s *Service) listLetters(c echo.Context, _ action) (int, any, error) {
	limit, before, err := page(c)
	if err != nil {
		return 0, nil, err
	}
	found, err := s.deps.Letters.List(c.Request().Context(), letterFilter(c), before, limit)
	if err != nil {
		return 0, nil, err
	}
	body := struct {
		Letters []letter `json:"letters"`
		Before  int64    `json:"before,omitempty"` // of the next page
	}{Letters: []letter{}}
	for i := range found {
		body.Letters = append(body.Letters, letterOf(found[i], nil))
	}
	if len(found) == limit {
		body.Before = found[limit-1].ID
	}
	return http.StatusOK, body, nil
}

func (s *Service) showLetter(c echo.Context, _ action) (int, any, error) {
	id, err := idOf(c)
	if err != nil {
		return 0, nil, err
	}
	found, err := s.deps.Letters.Get(c.Request().Context(), id)
	if err != nil {
		return 0, nil, unknownLetter(id, err)
	}
	return http.StatusOK, letterOf(found, found.Raw), nil
}

func (s *Service) replayLetter(c echo.Context, a action) (int, any, error) {
	id, err := idOf(c)
	if err != nil {
		return 0, nil, err
	}
	return s.replay(c, a.noted("dlq.replay", strconv.FormatInt(id, 10)), store.LetterFilter{IDs: []int64{id}})
}

func (s *Service) replayLetters(c echo.Context, a action) (int, any, error) {
	filter := letterFilter(c)
	none := filter.Stage == "" && filter.Class == "" && filter.DID == "" && filter.Collection == ""
	if none != (c.QueryParam("all") == "true") {
		return 0, nil, xrpc.InvalidRequest("choose by stage, class, did or collection, or say all=true")
	}
	return s.replay(c, a.noted("dlq.replay", c.QueryParams().Encode()), filter)
}

// replay asks the indexer; what becomes of the letters is seen in them.
func (s *Service) replay(c echo.Context, noted store.AdminAction, filter store.LetterFilter) (int, any, error) {
	var ids []int64
	err := s.deps.Log.Within(c.Request().Context(), noted, func(tx pgx.Tx) (detail string, err error) {
		ids, err = store.NewDeadLetters(tx).Request(c.Request().Context(), filter)
		if err == nil && len(filter.IDs) > 0 && len(ids) == 0 {
			return "", unknownLetter(filter.IDs[0], store.ErrNotFound)
		}
		return fmt.Sprintf("%d asked for", len(ids)), err
	})
	return http.StatusAccepted, map[string]any{"requested": len(ids)}, err
}

func (s *Service) dropLetter(c echo.Context, a action) (int, any, error) {
	id, err := idOf(c)
	if err != nil {
		return 0, nil, err
	}
	err = s.deps.Log.Within(c.Request().Context(), a.noted("dlq.drop", strconv.FormatInt(id, 10)), func(tx pgx.Tx) (string, error) {
		n, err := store.NewDeadLetters(tx).Delete(c.Request().Context(), store.LetterFilter{IDs: []int64{id}})
		if err == nil && n == 0 {
			err = unknownLetter(id, store.ErrNotFound)
		}
		return "dropped", err
	})
	return http.StatusNoContent, nil, err
}

func letterFilter(c echo.Context) store.LetterFilter {
	return store.LetterFilter{
		Stage: c.QueryParam("stage"), Class: c.QueryParam("class"), DID: syntax.DID(c.QueryParam("did")), Collection: syntax.NSID(c.QueryParam("collection")),
	}
}

func unknownLetter(id int64, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &xrpc.Error{Status: http.StatusNotFound, Name: "NotFound", Message: fmt.Sprintf("there is no dead letter %d", id)}
	}
	return err
}

func idOf(c echo.Context) (int64, error) {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, xrpc.InvalidRequest("the ID of a dead letter is a number")
	}
	return id, nil
}

const (
	defaultPage = 50
	largestPage = 200
)

// page reads the parameters of a list.
func page(c echo.Context) (limit int, before int64, err error) {
	limit = defaultPage
	if text := c.QueryParam("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > largestPage {
			return 0, 0, xrpc.InvalidRequest("parameter limit: expected 1 to %d", largestPage)
		}
	}
	if text := c.QueryParam("before"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			return 0, 0, xrpc.InvalidRequest("parameter before: expected the ID of what a page ended with")
		}
	}
	return limit, before, nil
}
