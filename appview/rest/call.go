package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
)

// Call is one request, with its parameters checked against the route's.
type Call struct {
	echo.Context
	*xrpc.Arguments // Text, Texts and Limit read parameters

	route *Route
	apart *apart // nil for who answers its client itself
}

// Ctx ends when the request's time is up or its client has gone.
func (c *Call) Ctx() context.Context {
	if c.apart != nil {
		return c.apart.ctx
	}
	return c.Request().Context()
}

// Int is an integer parameter, or the one that its row has as default; ok is false
// without either.
func (c *Call) Int(name string) (n int, ok bool) {
	if text, given := c.Text(name); given {
		n, err := strconv.Atoi(text)
		return n, err == nil
	}
	for _, p := range c.route.Params {
		if p.Name == name {
			n, ok = p.Default.(int)
		}
	}
	return n, ok
}

// Bool tells whether a parameter is true.
func (c *Call) Bool(name string) bool {
	text, _ := c.Text(name)
	return text == "true"
}

// Word is a text parameter, or its default.
func (c *Call) Word(name string) string {
	if text, given := c.Text(name); given {
		return text
	}
	for _, p := range c.route.Params {
		if word, ok := p.Default.(string); ok && p.Name == name {
			return word
		}
	}
	return ""
}

// Answer sends body as JSON. Values in it that are json.RawMessage go out byte for
// byte, if they hold no white space, as those of the store do.
func (c *Call) Answer(body any) error {
	encoded, err := encode(body)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if c.apart != nil {
		partial, ok := body.(degradable)
		c.apart.answer = cache.Answer{Body: encoded, Partial: ok && partial.isDegraded()}
		return nil
	}
	return c.send(encoded)
}

func (c *Call) send(encoded []byte) error {
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, encoded)
}

func encode(body any) ([]byte, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// Key is the record that a parameter names by its AT-URI; a handle in it is resolved.
func (s *Service) Key(c *Call, parameter string) (record.Key, error) {
	text, _ := c.Text(parameter)
	repo, collection, rkey := xrpc.SplitURI(syntax.ATURI(text))
	if rkey == "" {
		return record.Key{}, xrpc.InvalidRequest("parameter %q: expected the AT-URI of one record, with collection and record key, got %s", parameter, xrpc.Quote(text))
	}
	did, err := s.xrpc.DID(c.Ctx(), parameter, repo)
	return record.Key{DID: did, Collection: collection, Rkey: rkey}, err
}

// NotFound is the answer for a record that is not in the index.
func NotFound(key record.Key) *xrpc.Error {
	return &xrpc.Error{Status: http.StatusNotFound, Name: "RecordNotFound", Message: fmt.Sprintf("the index holds no record at %s", key)}
}

// TooLarge is the answer to what would take more than a request may: a client's
// error that a smaller question avoids.
func TooLarge(format string, args ...any) *xrpc.Error {
	return &xrpc.Error{Status: http.StatusBadRequest, Name: "TooLarge", Message: fmt.Sprintf(format, args...)}
}
