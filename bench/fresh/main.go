// Command fresh measures how soon a commit is found: from the moment at which it is on
// the firehose until the API's search and graph answer with it, while the network
// writes so many commits a second.
//
//	go run ./test/stores -- go run ./bench/fresh
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/bench/usage"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

type options struct {
	rate, probes float64
	warmUp       time.Duration
	duration     time.Duration
	program      string
}

func main() {
	var o options
	flag.Float64Var(&o.rate, "rate", 500, "commits a second, of one record each")
	flag.Float64Var(&o.probes, "probes", 4, "of these, so many a second are looked for")
	flag.DurationVar(&o.warmUp, "warm-up", time.Minute, "so long the network writes before anything is measured, for the compilers of the stores")
	flag.DurationVar(&o.duration, "duration", time.Minute, "of the measurement")
	flag.StringVar(&o.program, "program", "", "`path` of the layers program; built from the tree by default")
	flag.Parse()
	program.Exit(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) (err error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return err
	}
	var remove func()
	if o.program, remove, err = program.Given(ctx, o.program); err != nil {
		return err
	}
	defer remove()
	stores, err := scratch.Open(ctx, servers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stores.Drop()) }()
	m := &measurement{options: o, stores: stores}
	if m.world, err = simulate.NewWorld(simulate.Config{Seed: 1}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.world.Close()) }()
	server := simulate.NewServer(m.world, simulate.ServerConfig{})
	if err := server.Start("127.0.0.1:0"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.run(ctx, append(stores.Environment(), "LAYERS_RELAY_URL="+server.RelayURL(), "LAYERS_PLC_URL="+server.URL(), "LAYERS_ALLOW_PRIVATE_HOSTS=true", "LAYERS_METRICS_LISTEN=127.0.0.1:0"))
}

// measurement is a network, the programs that follow it, and what was seen.
type measurement struct {
	options
	stores *scratch.Stores
	world  *simulate.World
	base   string

	mu               sync.Mutex
	searched, linked []time.Duration
	failed           error
}

func (m *measurement) run(ctx context.Context, environment []string) (err error) {
	indexer, err := program.Launch(m.program, append(environment, "LAYERS_LISTEN=127.0.0.1:0"), "indexer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, indexer.Stop()) }()
	for _, said := range []string{"firehose connected", "search indexes are filled"} {
		if _, err := indexer.Await(ctx, said); err != nil {
			return err
		}
	}
	ports, err := program.FreePorts(1)
	if err != nil {
		return err
	}
	m.base = "http://127.0.0.1:" + ports[0]
	api, err := program.Launch(m.program, append(environment, "LAYERS_LISTEN=127.0.0.1:"+ports[0], "LAYERS_RATE_LIMITS=off"), "api")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Stop()) }()
	if err := program.UntilReady(ctx, api, m.base); err != nil {
		return err
	}
	return m.write(ctx, map[int]string{indexer.PID(): "indexer", api.PID(): "API"})
}

// atOnce is how many commits are looked for at a time: were there more whenever the
// stores are behind, asking alone would keep them there.
const atOnce = 8

// write has the network write while some of its commits are looked for.
func (m *measurement) write(ctx context.Context, processes map[int]string) error {
	generator, err := simulate.NewGenerator(m.world, simulate.Script{Authors: 50, Records: 1 << 30, Edits: 10})
	if err != nil {
		return err
	}
	defer generator.Stop()
	prober, err := m.world.CreateAccount("prober")
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	written := make(chan error, 1)
	go func() { written <- generator.Run(writing, m.rate) }()
	var probes sync.WaitGroup
	room := make(chan struct{}, atOnce)
	text, err := m.commit(prober, map[string]any{"text": "the text that the others are parts of"})
	if err != nil {
		stop()
		return errors.Join(err, <-written)
	}
	time.Sleep(m.warmUp)
	first, began := m.world.LastSeq(), time.Now()
	meter := usage.Measure(m.stores.Servers, processes)
	beat := time.NewTicker(time.Duration(float64(time.Second) / m.probes))
	defer beat.Stop()
	for ctx.Err() == nil && time.Since(began) < m.duration {
		<-beat.C
		room <- struct{}{}
		probes.Go(func() {
			defer func() { <-room }()
			m.probe(ctx, prober, text)
		})
	}
	commits, took := m.world.LastSeq()-first, time.Since(began)
	used := meter.Stop()
	probes.Wait()
	stop()
	if err := errors.Join(<-written, m.failed); err != nil {
		return err
	}
	m.print(float64(commits)/took.Seconds(), took, used)
	return nil
}

const expressions = syntax.NSID("pub.layers.expression.expression")

// commit writes an expression, and returns where it is.
func (m *measurement) commit(prober syntax.DID, with map[string]any) (syntax.ATURI, error) {
	value := map[string]any{
		"$type": string(expressions), "id": strings.ToLower(rand.Text()), "kind": "sentence", "createdAt": time.Now().UTC().Format(time.RFC3339),
	}
	for name, v := range with {
		value[name] = v
	}
	rkey := syntax.RecordKey(syntax.NewTIDNow(0))
	_, err := m.world.Commit(prober, simulate.Create(expressions, rkey, value))
	return syntax.ATURI("at://" + string(prober) + "/" + string(expressions) + "/" + string(rkey)), err
}

const (
	again   = 200 * time.Millisecond // between two questions for the same, so that asking is not what keeps the stores busy
	patient = time.Minute
)

// probe writes a sentence of a text, and waits until a search for its word and the
// sentence's neighbours have it.
func (m *measurement) probe(ctx context.Context, prober syntax.DID, text syntax.ATURI) {
	word := "x" + strings.ToLower(rand.Text())
	uri, err := m.commit(prober, map[string]any{"text": "a sentence with " + word, "parentRef": string(text)})
	if err != nil {
		m.fail(err)
		return
	}
	began := time.Now()
	var both sync.WaitGroup
	both.Go(func() {
		m.until(ctx, began, &m.searched, "/api/v1/search?"+url.Values{"q": {word}}.Encode(), "hits")
	})
	both.Go(func() {
		m.until(ctx, began, &m.linked, "/api/v1/graph/nodes/"+url.PathEscape(string(uri))+"/neighbors?edge_type=PARENT_OF", "neighbors")
	})
	both.Wait()
}

// until asks again and again for what has a list, and notes when that is not empty.
func (m *measurement) until(ctx context.Context, began time.Time, into *[]time.Duration, path, list string) {
	for time.Since(began) < patient && ctx.Err() == nil {
		there, err := m.ask(ctx, path, list)
		if err != nil {
			m.fail(err)
			return
		}
		if there {
			m.mu.Lock()
			*into = append(*into, time.Since(began))
			m.mu.Unlock()
			return
		}
		time.Sleep(again)
	}
	m.fail(fmt.Errorf("%s: not there after %s", path, patient))
}

func (m *measurement) ask(ctx context.Context, path, list string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+path, nil)
	if err != nil {
		return false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", path, res.Status)
	}
	var answer map[string]json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return false, err
	}
	raw, there := answer[list]
	if !there {
		return false, fmt.Errorf("%s: the answer has no %s", path, list)
	}
	return string(raw) != "[]", nil
}

func (m *measurement) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = errors.Join(m.failed, err)
}

func (m *measurement) print(rate float64, took time.Duration, used map[string]float64) {
	fmt.Printf("%.0f commits a second\n%-24s %8s %10s %10s %10s\n", rate, "", "probes", "p50", "p99", "max")
	for _, row := range []struct {
		name  string
		after []time.Duration
	}{{"commit to search", m.searched}, {"commit to graph", m.linked}} {
		slices.Sort(row.after)
		at := func(share float64) time.Duration {
			return row.after[min(int(share*float64(len(row.after))), len(row.after)-1)].Round(time.Millisecond)
		}
		if len(row.after) > 0 {
			fmt.Printf("%-24s %8d %10s %10s %10s\n", row.name, len(row.after), at(0.5), at(0.99), at(1))
		}
	}
	for _, name := range []string{"indexer", "API", "PostgreSQL", "Redis", "Elasticsearch", "Neo4j", "the program"} {
		fmt.Printf("CPU of %-14s %4.0f %% of a core\n", name, used[name]/took.Seconds()*100)
	}
}
