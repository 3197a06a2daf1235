package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/layers-pub/layers-appview/internal/record"
)

// maxBulk is the size in bytes at which a bulk request is sent. A single document
// may be larger; the server takes 100 MB a request unless configured otherwise.
const maxBulk = 5 << 20

// errNoIndex is retryable: a client that could not reach the server at its start
// may do so later.
var errNoIndex = errors.New("no index is known for the collection: Ensure has not succeeded with its mapping")

// Document is what search knows of one record.
type Document struct {
	Key       record.Key
	Version   int64
	CID       syntax.CID
	CreatedAt time.Time // zero where the record claims none
	IndexedAt time.Time
	// Body is a JSON object in the form that the collection's mapping describes. A
	// nil Body deletes the document. In an object that the mapping describes, leave
	// out members that it does not name: Elasticsearch refuses a document for member
	// names that are blank or have a dot in the wrong place, even where it maps nothing.
	Body json.RawMessage
}

// Write brings documents up to the given versions. One that is there in a higher
// version stays, which is success; one of the same version is replaced, since its
// content may depend on records that have arrived since. Deletions are versioned
// in the same way, and hold off older versions for an hour.
//
// It returns nil or a *[record.WriteError]. It does not wait between tries: backing off is the caller's.
// What is written becomes visible to queries within a second.
func (c *Client) Write(ctx context.Context, docs []Document) error {
	b := c.writeAll(ctx, docs)
	if b.moved && c.relocate(ctx) {
		b = c.writeAll(ctx, docs) // what was written is written once more, to no effect
	}
	if len(b.failures) > 0 {
		return &record.WriteError{Server: "elasticsearch", Failures: b.failures}
	}
	return nil
}

func (c *Client) writeAll(ctx context.Context, docs []Document) *bulk {
	b := &bulk{client: c}
	for _, doc := range docs {
		b.add(ctx, doc)
	}
	b.flush(ctx)
	return b
}

// bulk gathers operations up to maxBulk and sends them.
type bulk struct {
	client   *Client
	body     bytes.Buffer
	ops      []operation
	failures []record.Unwritten
	moved    bool // an index is not there: another generation may have taken its place
}

// operation is one item of a bulk request.
type operation struct {
	key   record.Key
	start int // of its lines in the body
	// shadow marks the copy for an older index that still answers queries. That
	// index has another mapping and will be dropped, so what it refuses is no failure.
	shadow bool
}

func (b *bulk) fail(key record.Key, retryable bool, err error) {
	b.failures = append(b.failures, record.Unwritten{Key: key, Retryable: retryable, Err: err})
}

// add queues a document for its index, and for the older index beside it.
func (b *bulk) add(ctx context.Context, doc Document) {
	ix, ok := b.client.index(doc.Key.Collection)
	if !ok {
		b.fail(doc.Key, true, errNoIndex)
		return
	}
	source, err := encode(doc)
	if err != nil {
		b.fail(doc.Key, false, err)
		return
	}
	b.queue(ctx, operation{key: doc.Key}, writeAlias(ix.name), doc.Version, source)
	if !ix.live {
		b.queue(ctx, operation{key: doc.Key, shadow: true}, ix.alias, doc.Version, source)
	}
}

func (b *bulk) queue(ctx context.Context, op operation, alias string, version int64, source []byte) {
	if b.body.Len() > 0 && b.body.Len()+len(source) > maxBulk {
		b.flush(ctx)
	}
	op.start = b.body.Len()
	b.ops = append(b.ops, op)
	verb := "index"
	if source == nil {
		verb = "delete"
	}
	type target struct {
		Index       string `json:"_index"`
		ID          string `json:"_id"`
		Version     int64  `json:"version"`
		VersionType string `json:"version_type"`
	}
	action := map[string]target{verb: {alias, documentID(op.key), version, "external_gte"}}
	// Encoder ends each value with the newline that the format wants; strings and numbers always encode.
	_ = json.NewEncoder(&b.body).Encode(action)
	b.body.Write(source)
}

func (b *bulk) flush(ctx context.Context) {
	if len(b.ops) > 0 {
		b.send(ctx, b.ops, b.body.Bytes())
	}
	b.ops = b.ops[:0]
	b.body.Reset()
}

// send posts operations, whose lines are body, and records what was not written.
func (b *bulk) send(ctx context.Context, ops []operation, body []byte) {
	requireAlias := true
	var answer struct {
		Items []map[string]struct {
			Status int   `json:"status"`
			Error  cause `json:"error"`
		} `json:"items"`
	}
	err := b.client.do(ctx, esapi.BulkRequest{
		Body:         bytes.NewReader(body),
		RequireAlias: &requireAlias,
		FilterPath:   []string{"items.*.status", "items.*.error"},
	}, &answer)
	if err == nil && len(answer.Items) != len(ops) {
		err = fmt.Errorf("answer has %d items for %d operations", len(answer.Items), len(ops))
	}
	if err != nil {
		b.sendFailed(ctx, ops, body, fmt.Errorf("bulk request: %w", err))
		return
	}
	for i, item := range answer.Items {
		for _, result := range item { // one member, named by the verb
			if !written(result.Status, result.Error) {
				b.itemFailed(ops[i], &statusError{Status: result.Status, Cause: result.Error})
			}
		}
	}
}

// sendFailed handles a request that failed as a whole. Nothing condemns its
// documents, unless a single one is too large for the server to take.
func (b *bulk) sendFailed(ctx context.Context, ops []operation, body []byte, err error) {
	var status *statusError
	tooLarge := errors.As(err, &status) && status.Status == http.StatusRequestEntityTooLarge
	if tooLarge && len(ops) > 1 {
		middle := len(ops) / 2
		offset := ops[middle].start - ops[0].start
		b.send(ctx, ops[:middle], body[:offset])
		b.send(ctx, ops[middle:], body[offset:])
		return
	}
	for _, op := range ops {
		if !op.shadow || !tooLarge {
			b.fail(op.key, !tooLarge, err)
		}
	}
}

func (b *bulk) itemFailed(op operation, err *statusError) {
	b.moved = b.moved || err.Status == http.StatusNotFound
	if op.shadow && (err.refused() || err.Status == http.StatusNotFound) {
		return
	}
	b.fail(op.key, !err.refused(), err)
}

// written tells whether an item's answer is as good as done: stale versions
// conflict, and a deleted document may never have been there.
func written(status int, reason cause) bool {
	switch {
	case status < http.StatusMultipleChoices, status == http.StatusConflict:
		return true
	default:
		return status == http.StatusNotFound && reason.Type == ""
	}
}

// encode is the document's source on one line, or nil for a deletion.
func encode(doc Document) ([]byte, error) {
	if doc.Body == nil {
		return nil, nil
	}
	source := struct {
		URI        string          `json:"uri"`
		DID        string          `json:"did"`
		Collection string          `json:"collection"`
		Rkey       string          `json:"rkey"`
		CID        string          `json:"cid"`
		Version    int64           `json:"version"`
		CreatedAt  string          `json:"createdAt,omitempty"`
		IndexedAt  string          `json:"indexedAt,omitempty"`
		Value      json.RawMessage `json:"value"` // the encoder checks and compacts it
	}{
		URI: doc.Key.String(), DID: string(doc.Key.DID), Collection: string(doc.Key.Collection), Rkey: string(doc.Key.Rkey),
		CID: string(doc.CID), Version: doc.Version, CreatedAt: timestamp(doc.CreatedAt), IndexedAt: timestamp(doc.IndexedAt), Value: doc.Body,
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(source); err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return line.Bytes(), nil
}

// timestamp writes a time as Elasticsearch reads it; empty for the zero time.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
