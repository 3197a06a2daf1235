package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/layers-pub/layers-appview/bench/scratch"
)

// elastic speaks to Elasticsearch with no client in between.
type elastic struct{ url string }

func (e elastic) ask(ctx context.Context, method, path string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(e.url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: status %d: %.500s", method, path, response.StatusCode, raw)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(raw, answer)
}

const (
	bulkBytes   = 5 << 20
	bulkWriters = 4 // as many tasks of a target as a process works on at a time
)

// documentRate writes the documents of a measurement once more, into indexes with
// the same mappings.
func documentRate(ctx context.Context, s *scratch.Stores) (float64, error) {
	e := elastic{s.Elasticsearch}
	copies, err := e.copyIndexes(ctx, s.Name)
	if err != nil {
		return 0, err
	}
	bodies, n, err := e.bulks(ctx, s.Name, copies)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bulkWriters)
	for _, body := range bodies {
		group.Go(func() error {
			var answer struct{ Errors bool }
			if err := e.ask(ctx, http.MethodPost, "/_bulk?filter_path=errors", body, &answer); err != nil {
				return err
			}
			if answer.Errors {
				return errors.New("a document was refused")
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// copyIndexes makes an empty index beside each index of the measurement, and
// returns their names by those of the originals. They are dropped with the rest,
// since their mapping says whose they are.
func (e elastic) copyIndexes(ctx context.Context, prefix string) (map[string]string, error) {
	var indexes map[string]struct {
		Mappings json.RawMessage
		Settings struct {
			Index struct {
				Mapping json.RawMessage `json:"mapping"`
			}
		}
	}
	if err := e.ask(ctx, http.MethodGet, "/"+prefix+"-*", nil, &indexes); err != nil {
		return nil, err
	}
	copies := map[string]string{}
	for name, ix := range indexes {
		settings := map[string]any{"number_of_shards": 1, "number_of_replicas": 0}
		if ix.Settings.Index.Mapping != nil {
			settings["mapping"] = ix.Settings.Index.Mapping
		}
		body, err := json.Marshal(map[string]any{"mappings": ix.Mappings, "settings": map[string]any{"index": settings}})
		if err != nil {
			return nil, err
		}
		copies[name] = name + "-bare"
		if err := e.ask(ctx, http.MethodPut, "/"+copies[name], body, nil); err != nil {
			return nil, err
		}
	}
	return copies, nil
}

// bulks reads documents and makes bulk requests of them.
func (e elastic) bulks(ctx context.Context, prefix string, copies map[string]string) (bodies [][]byte, n int, err error) {
	type page struct {
		Scroll string `json:"_scroll_id"`
		Hits   struct {
			Hits []struct {
				Index  string          `json:"_index"`
				ID     string          `json:"_id"`
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	if err := e.ask(ctx, http.MethodPost, "/"+prefix+"-*/_refresh", nil, nil); err != nil {
		return nil, 0, err
	}
	var p page
	var body bytes.Buffer
	err = e.ask(ctx, http.MethodPost, "/"+prefix+"-*/_search?scroll=1m", []byte(`{"size":500,"sort":["_doc"]}`), &p)
	for err == nil && len(p.Hits.Hits) > 0 && n < sample {
		for _, hit := range p.Hits.Hits {
			action, err := json.Marshal(map[string]any{"index": map[string]string{"_index": copies[hit.Index], "_id": hit.ID}})
			if err != nil {
				return nil, 0, err
			}
			body.Write(append(action, '\n'))
			body.Write(append(hit.Source, '\n'))
			n++
			if body.Len() > bulkBytes {
				bodies = append(bodies, bytes.Clone(body.Bytes()))
				body.Reset()
			}
		}
		next, err := json.Marshal(map[string]string{"scroll": "1m", "scroll_id": p.Scroll})
		if err != nil {
			return nil, 0, err
		}
		p = page{}
		if err := e.ask(ctx, http.MethodPost, "/_search/scroll", next, &p); err != nil {
			return nil, 0, err
		}
	}
	if body.Len() > 0 {
		bodies = append(bodies, body.Bytes())
	}
	return bodies, n, err
}
