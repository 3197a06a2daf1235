package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/world"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
)

// load is an API process, and readers that ask it and the served projections for
// records at random and hold each answer to what was written.
type load struct {
	world   *world.World
	process *program.Process
	base    string                      // of the API
	gets    map[syntax.NSID]syntax.NSID // queries by collection
	ask     [3]question                 // by source; nil for what is not served yet
	cancel  context.CancelFunc
	running sync.WaitGroup
	began   time.Time
	answers [3]atomic.Int64 // by source
	again   atomic.Int64    // answers that came of a second question
	mu      sync.Mutex
	wrong   []error
}

// question asks for a record and checks the answer.
type question func(context.Context, record.Key) error

var sources = [3]string{"the API", "the served indexes", "the served graph"}

// read starts so many readers, who ask so often a second together. Without any it
// returns a load that does nothing.
func read(ctx context.Context, w *world.World, readers int, rate float64, targets []record.Target) (*load, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{world: w, cancel: cancel, gets: map[syntax.NSID]syntax.NSID{}}
	l.ask = [3]question{l.askAPI, nil, nil}
	if slices.Contains(targets, record.Search) {
		l.ask[1] = l.askSearch
	}
	if slices.Contains(targets, record.Graph) {
		l.ask[2] = l.askGraph
	}
	if readers == 0 {
		return l, nil
	}
	for _, q := range w.Catalog.Queries() {
		if q.Kind == catalog.Get {
			l.gets[q.Collection] = q.NSID
		}
	}
	if err := l.serve(ctx); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	l.began = time.Now()
	pause := time.Duration(float64(readers) / rate * float64(time.Second))
	for range readers {
		l.running.Go(func() {
			beat := time.NewTicker(pause)
			defer beat.Stop()
			for ctx.Err() == nil {
				l.askAll(ctx, w.Keys[rand.IntN(len(w.Keys))])
				select {
				case <-beat.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return l, nil
}

// serve runs `layers api` on the world's database.
func (l *load) serve(ctx context.Context) error {
	path, remove, err := program.Given(ctx, "")
	if err != nil {
		return err
	}
	defer remove() // what runs stays
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	l.base = "http://" + address
	env := append(os.Environ(), "DATABASE_URL="+l.world.DatabaseURL, "LAYERS_LISTEN="+address, "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LAYERS_RATE_LIMITS=off", "LOG_LEVEL=warn")
	if l.process, err = program.Launch(path, env, "api"); err != nil {
		return err
	}
	return program.UntilReady(ctx, l.process, l.base)
}

// askAll asks each source for a record. A question that was on its way to what has
// just been replaced is asked once more, as those who serve searches have to.
func (l *load) askAll(ctx context.Context, key record.Key) {
	for source, ask := range l.ask {
		if ask == nil || source == 1 && !l.world.Searchable[key.Collection] {
			continue
		}
		err := ask(ctx, key)
		if err != nil && source > 0 && ctx.Err() == nil {
			l.again.Add(1)
			err = ask(ctx, key)
		}
		if ctx.Err() != nil {
			return
		}
		l.answers[source].Add(1)
		if err != nil {
			l.mu.Lock()
			l.wrong = append(l.wrong, fmt.Errorf("%s: %s: %w", sources[source], key, err))
			l.mu.Unlock()
		}
	}
}

// askAPI gets one record and checks that it is the one that was written.
func (l *load) askAPI(ctx context.Context, key record.Key) error {
	uri := key.String()
	var got struct {
		URI   string          `json:"uri"`
		CID   syntax.CID      `json:"cid"`
		Value json.RawMessage `json:"value"`
	}
	if err := fetch(ctx, l.base+"/xrpc/"+string(l.gets[key.Collection])+"?"+url.Values{"uri": {uri}}.Encode(), nil, &got); err != nil {
		return err
	}
	if want := l.world.CIDs[key]; got.URI != uri || got.CID != want || len(got.Value) == 0 {
		return fmt.Errorf("CID %s, should be %s", got.CID, want)
	}
	return nil
}

// askSearch looks for the one document of a record.
func (l *load) askSearch(ctx context.Context, key record.Key) error {
	uri := key.String()
	question, err := json.Marshal(map[string]any{"query": map[string]any{"term": map[string]any{"uri": uri}}, "_source": []string{"uri", "cid"}})
	if err != nil {
		return err
	}
	var got struct {
		Hits struct {
			Hits []struct {
				Source struct {
					URI string     `json:"uri"`
					CID syntax.CID `json:"cid"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	address := l.world.Elasticsearch + "/" + l.world.Search.Alias(key.Collection) + "/_search"
	if err := fetch(ctx, address, question, &got); err != nil {
		return err
	}
	if hits := got.Hits.Hits; len(hits) != 1 || hits[0].Source.URI != uri || hits[0].Source.CID != l.world.CIDs[key] {
		return fmt.Errorf("%d documents found: %v", len(hits), hits)
	}
	return nil
}

// askGraph gets the node of a record, and its edges.
func (l *load) askGraph(ctx context.Context, key record.Key) error {
	got, err := l.world.Graph.Get(ctx, key)
	if err == nil && (got.Dangling || got.Version == 0) {
		err = errors.New("the record's node is not filled")
	}
	return err
}

// fetch asks over HTTP; with a question in the body it posts.
func fetch(ctx context.Context, address string, question []byte, out any) error {
	method := http.MethodGet
	if question != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(question))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return json.NewDecoder(res.Body).Decode(out)
}

// processes are those that the load needs.
func (l *load) processes() map[int]string {
	if l.process == nil {
		return nil
	}
	return map[int]string{l.process.PID(): "the API"}
}

// stop ends the readers and says what they saw.
func (l *load) stop() error {
	l.cancel()
	l.running.Wait()
	if l.process == nil {
		return nil
	}
	took := time.Since(l.began).Seconds()
	for i, name := range sources {
		fmt.Printf("       readers: %d answers of %s, %.0f/s\n", l.answers[i].Load(), name, float64(l.answers[i].Load())/took)
	}
	fmt.Printf("       readers: %d answers wrong; %d questions asked again\n", len(l.wrong), l.again.Load())
	return errors.Join(append(l.wrong[:min(5, len(l.wrong))], l.process.Stop())...)
}
