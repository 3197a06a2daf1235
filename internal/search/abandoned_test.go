package search

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// TestAbandonedSearchEndsInTheServer asks what takes the server minutes, and looks whether
// it goes on once nobody waits for the answer.
func TestAbandonedSearchEndsInTheServer(t *testing.T) {
	t.Parallel()
	prefix := "test-" + strings.ToLower(rand.Text())
	client, err := Open(Config{URLs: []string{os.Getenv("LAYERS_TEST_ELASTICSEARCH_URL")}, Prefix: prefix})
	require.NoError(t, err, "LAYERS_TEST_ELASTICSEARCH_URL: run tests by way of `make test`")
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	t.Cleanup(func() { require.NoError(t, client.Drop(context.Background())) })
	alias := client.fillWithWords(t)
	working := func() (n int) {
		var answer struct {
			Nodes map[string]struct {
				Tasks map[string]struct{ Headers map[string]string }
			}
		}
		require.NoError(t, client.do(t.Context(), esapi.TasksListRequest{Actions: []string{"indices:data/read/search*"}}, &answer))
		for _, node := range answer.Nodes {
			for _, task := range node.Tasks {
				if task.Headers["X-Opaque-Id"] == prefix {
					n++
				}
			}
		}
		return n
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		asked <- client.do(ctx, esapi.SearchRequest{Index: []string{alias}, Body: jsonBody(slow()), Header: http.Header{"X-Opaque-Id": {prefix}}}, nil)
	}()
	require.Eventually(t, func() bool { return working() > 0 }, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-asked, context.Canceled)
	require.Eventually(t, func() bool { return working() == 0 }, time.Minute, 10*time.Millisecond, "the server goes on")
}

// fillWithWords makes an index of 200,000 different words.
func (c *Client) fillWithWords(t *testing.T) (alias string) {
	const collection, documents, words = "pub.layers.test.words", 100, 2000
	_, err := c.Ensure(t.Context(), []Mapping{{Collection: collection, Properties: map[string]any{"words": map[string]any{"type": "keyword", "doc_values": false}}}})
	require.NoError(t, err)
	docs := make([]Document, documents)
	for i := range docs {
		list := make([]string, words)
		for j := range list {
			list[j] = fmt.Sprintf("%x", i*words+j)
		}
		body, err := json.Marshal(map[string]any{"words": list})
		require.NoError(t, err)
		docs[i] = Document{
			Key:     record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: collection, Rkey: syntax.RecordKey(list[0])},
			Version: 1, CID: "bafyreigwpvjq4zq3vcbeibd4kztnb3ezvtwvxk4q6umlxnebxlumxgqhn4", Body: body,
		}
	}
	require.NoError(t, c.Write(t.Context(), docs))
	require.NoError(t, c.Refresh(t.Context(), collection))
	return c.Alias(collection)
}

// slow asks for all of the words again and again.
func slow() map[string]any {
	filters := make([]any, 20)
	for i := range filters {
		ranges := make([]any, 1000)
		for j := range ranges {
			ranges[j] = map[string]any{"range": map[string]any{"value.words": map[string]any{"gte": fmt.Sprintf("%x", j)}}}
		}
		filters[i] = map[string]any{"bool": map[string]any{"should": ranges}}
	}
	return map[string]any{"size": 0, "aggs": map[string]any{"slow": map[string]any{"filters": map[string]any{"filters": filters}}}}
}
