package search

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"
)

const maxReason = 500 // bytes of a server's explanation that are kept; it can quote the document

// cause is the explanation that Elasticsearch gives for a refusal.
type cause struct {
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	CausedBy *cause `json:"caused_by"`
	Root     []struct {
		Type string `json:"type"`
	} `json:"root_cause"`
}

func (c cause) String() string {
	parts := []string{}
	for at := &c; at != nil; at = at.CausedBy {
		parts = append(parts, at.Type+": "+at.Reason)
	}
	text := strings.Join(parts, ": caused by ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}

// statusError is an answer outside 2xx, to a request or to one item of a bulk.
type statusError struct {
	Status int
	Cause  cause
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), e.Cause)
}

func newStatusError(res *esapi.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%d %s: read answer: %w", res.StatusCode, http.StatusText(res.StatusCode), err)
	}
	var body struct {
		Error cause `json:"error"`
	}
	if json.Unmarshal(raw, &body) != nil || body.Error.Type == "" {
		body.Error = cause{Type: "answer", Reason: string(raw)}
	}
	return &statusError{Status: res.StatusCode, Cause: body.Error}
}

// errPartial says that the server answered 200 for less than was asked for.
var errPartial = errors.New("the answer is of a part of the index alone")

// shards is what an answer says of the parts of an index that were asked.
type shards struct {
	Failed int `json:"failed"`
}

func (s shards) whole() error {
	if s.Failed > 0 {
		return fmt.Errorf("%w: %d shards failed", errPartial, s.Failed)
	}
	return nil
}

// refused tells whether an item's answer condemns the document itself. Any other
// answer (429, 5xx, a read-only or closed or missing index, missing rights) says
// something of the server, and passes.
func (e *statusError) refused() bool {
	switch e.Cause.Type {
	case "index_closed_exception", "index_not_found_exception", "cluster_block_exception":
		return false
	}
	return e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge
}
