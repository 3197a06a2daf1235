package search

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/layers-pub/layers-appview/internal/record"
)

const (
	scanPage  = 5000 // documents a request; the server takes 10,000
	keepAlive = "2m" // for which the server keeps a scan's view between two pages
)

// Refresh makes everything written so far visible to Scan, Count and queries.
func (c *Client) Refresh(ctx context.Context, collection syntax.NSID) error {
	ix, ok := c.index(collection)
	if !ok {
		return fmt.Errorf("elasticsearch: refresh %s: %w", collection, errNoIndex)
	}
	var answer struct {
		Shards shards `json:"_shards"`
	}
	err := c.do(ctx, esapi.IndicesRefreshRequest{Index: []string{ix.name}}, &answer)
	if err == nil {
		err = answer.Shards.whole()
	}
	if err != nil {
		return fmt.Errorf("elasticsearch: refresh %s: %w", collection, err)
	}
	return nil
}

// Count is the number of documents of a collection, as of the last refresh.
func (c *Client) Count(ctx context.Context, collection syntax.NSID) (int64, error) {
	ix, ok := c.index(collection)
	if !ok {
		return 0, fmt.Errorf("elasticsearch: count %s: %w", collection, errNoIndex)
	}
	var answer struct {
		Count  int64  `json:"count"`
		Shards shards `json:"_shards"`
	}
	err := c.do(ctx, esapi.CountRequest{Index: []string{ix.name}}, &answer)
	if err == nil {
		err = answer.Shards.whole()
	}
	if err != nil {
		return 0, fmt.Errorf("elasticsearch: count %s: %w", collection, err)
	}
	return answer.Count, nil
}

// Scan gives fn the key and version of every document of a collection, in no
// particular order, as the index was at one moment: writes since the last
// [Client.Refresh] may be missing. An error of fn ends the scan and is returned.
// It looks at the index that c writes, which need not be the one that queries
// use yet.
func (c *Client) Scan(ctx context.Context, collection syntax.NSID, fn func(key record.Key, version int64) error) error {
	ix, ok := c.index(collection)
	if !ok {
		return fmt.Errorf("elasticsearch: scan %s: %w", collection, errNoIndex)
	}
	var view struct {
		ID string `json:"id"`
	}
	if err := c.do(ctx, esapi.OpenPointInTimeRequest{Index: []string{ix.name}, KeepAlive: keepAlive}, &view); err != nil {
		return fmt.Errorf("elasticsearch: scan %s: open view: %w", collection, err)
	}
	// The server keeps what a merge made obsolete for as long as a view is open. A
	// failure to close is no matter: the view runs out.
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = c.do(closing, esapi.ClosePointInTimeRequest{Body: jsonBody(map[string]any{"id": view.ID})}, nil)
	}()

	var after json.RawMessage
	for {
		page, err := c.scanPage(ctx, view.ID, after)
		if err != nil {
			return fmt.Errorf("elasticsearch: scan %s: %w", collection, err)
		}
		for _, h := range page.Hits.Hits {
			key, version, err := h.name()
			if err != nil {
				return fmt.Errorf("elasticsearch: scan %s: document %s: %w", collection, h.ID, err)
			}
			if err := fn(key, version); err != nil {
				return err
			}
		}
		if len(page.Hits.Hits) < scanPage {
			return nil
		}
		view.ID = page.View
		after = page.Hits.Hits[len(page.Hits.Hits)-1].Sort
	}
}

type scanResult struct {
	View     string `json:"pit_id"`
	Shards   shards `json:"_shards"`
	TimedOut bool   `json:"timed_out"`
	Hits     struct {
		Hits []hit `json:"hits"`
	} `json:"hits"`
}

// hit is a document of a scan. Its key is read from its fields: the _id may be a hash.
type hit struct {
	ID     string          `json:"_id"`
	Sort   json.RawMessage `json:"sort"` // handed back as it came: its numbers may not fit a float
	Fields struct {
		DID        []string `json:"did"`
		Collection []string `json:"collection"`
		Rkey       []string `json:"rkey"`
		Version    []int64  `json:"version"`
	} `json:"fields"`
}

func (h hit) name() (record.Key, int64, error) {
	f := h.Fields
	if len(f.DID) != 1 || len(f.Collection) != 1 || len(f.Rkey) != 1 || len(f.Version) != 1 {
		return record.Key{}, 0, fmt.Errorf("has no key and version of its own: %+v", f)
	}
	key := record.Key{DID: syntax.DID(f.DID[0]), Collection: syntax.NSID(f.Collection[0]), Rkey: syntax.RecordKey(f.Rkey[0])}
	return key, f.Version[0], nil
}

func (c *Client) scanPage(ctx context.Context, view string, after json.RawMessage) (scanResult, error) {
	query := map[string]any{
		"size":             scanPage,
		"pit":              map[string]any{"id": view, "keep_alive": keepAlive},
		"sort":             []string{"_shard_doc"},
		"_source":          false,
		"docvalue_fields":  []string{"did", "collection", "rkey", "version"},
		"track_total_hits": false,
	}
	if after != nil {
		query["search_after"] = after
	}
	partial := false // a shard that does not answer must be an error, not a gap
	var result scanResult
	err := c.do(ctx, esapi.SearchRequest{
		Body:                      jsonBody(query),
		AllowPartialSearchResults: &partial,
		FilterPath:                []string{"pit_id", "_shards.failed", "timed_out", "hits.hits._id", "hits.hits.sort", "hits.hits.fields"},
	}, &result)
	if err == nil {
		err = result.Shards.whole()
	}
	if err == nil && (result.TimedOut || result.View == "") {
		err = fmt.Errorf("%w: its time was over, or it is none", errPartial)
	}
	return result, err
}
