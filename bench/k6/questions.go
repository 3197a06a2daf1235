package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/bench/world"
	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
)

// open fills all stores.
func (b *bench) open(ctx context.Context, servers scratch.Servers) (err error) {
	if b.world, err = world.Open(ctx, servers); err != nil {
		return err
	}
	began, counted := time.Now(), 0
	// What corpora have by themselves, and as many more as are missing.
	missing := 0.0
	denser := func(planned *fixture.Planned) {
		some, ok := planned.Value["annotations"].([]any)
		missing += float64(b.annotations) / float64(b.records)
		if !ok || len(some) == 0 {
			return
		}
		own := float64(len(some))
		missing -= own
		for ; missing >= own; missing -= own {
			some = append(some, again(planned.Value["annotations"])...)
		}
		planned.Value["annotations"] = some
		counted += len(some)
	}
	if err := b.world.Fill(ctx, b.records, denser, record.Tables); err != nil {
		return err
	}
	logger := func(rebuild.Progress) {}
	if _, err := rebuild.RunAll(ctx, b.world.Rebuild(record.Search, logger), b.world.Rebuild(record.Graph, logger)); err != nil {
		return err
	}
	if err := b.fillTables(ctx); err != nil {
		return err
	}
	if err := b.refreshStatistics(ctx); err != nil {
		return err
	}
	fmt.Printf("%d records with %d annotations, in all stores after %s\n", len(b.world.Keys), counted, time.Since(began).Round(time.Second))
	return nil
}

// again are the same annotations under other identifiers.
func again(annotations any) []any {
	some, _ := annotations.([]any)
	out := make([]any, len(some))
	for i := range some {
		one, ok := some[i].(map[string]any)
		if !ok {
			out[i] = some[i]
			continue
		}
		copied := make(map[string]any, len(one))
		for k, v := range one {
			copied[k] = v
		}
		a, c := rand.Uint64(), rand.Uint64()
		copied["uuid"] = map[string]any{"value": fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, c>>52, c&0xffffffffffff)}
		out[i] = copied
	}
	return out
}

// fillTables has a worker fill the read tables.
func (b *bench) fillTables(ctx context.Context) error {
	worker, err := program.Launch(b.program, append(b.world.Environment(), "LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LOG_LEVEL=warn"), "worker")
	if err != nil {
		return err
	}
	for {
		waiting, err := b.world.Waiting(ctx)
		if err == nil {
			err = worker.Alive()
		}
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return worker.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// refreshStatistics works out what an indexer would otherwise work out when it starts.
func (b *bench) refreshStatistics(ctx context.Context) error {
	refresh := exec.CommandContext(ctx, b.program, "stats", "refresh")
	refresh.Env = append(b.world.Environment(), "LOG_LEVEL=warn")
	if output, err := refresh.CombinedOutput(); err != nil {
		return fmt.Errorf("layers stats refresh: %w\n%s", err, output)
	}
	return nil
}

// ask writes the addresses that k6 asks for, of one kind.
func (b *bench) ask(kind, dir string) (string, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	var paths []string
	for range b.different {
		switch kind {
		case "search":
			paths = append(paths, searchPath(rng))
		case "graph":
			paths = append(paths, b.neighborhoodPath(rng))
		default:
			return "", fmt.Errorf("no kind of question is called %q", kind)
		}
	}
	raw, err := json.Marshal(paths)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, kind+".json")
	return file, os.WriteFile(file, raw, 0o600)
}

// searchPath is a search that facets are counted for: what annotators of the sample
// corpora have written, combined at random.
func searchPath(rng *rand.Rand) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	q := url.Values{"limit": {"20"}}
	if rng.IntN(2) == 0 {
		q.Set("label", pick("PER", "LOC"))
		q.Set("confidence_min", fmt.Sprint(600+rng.IntN(400)))
		q.Set("kind", "span")
	} else {
		q.Set("label", pick("NOUN", "VERB", "PROPN", "ADP", "nsubj", "obj", "root", "punct"))
		q.Set("formalism", "universal-dependencies")
	}
	q.Set("language", pick("en", "yo", "de", "ru", "ar", "hi", "zh", "ja"))
	if rng.IntN(3) == 0 {
		q.Set("subkind", pick("pos", "ner", "dependency"))
	}
	return "/api/v1/annotations?" + q.Encode()
}

// neighborhoodPath asks for what is within three hops of a text, a layer, a node, …
func (b *bench) neighborhoodPath(rng *rand.Rand) string {
	around := map[syntax.NSID]bool{
		"pub.layers.expression.expression": true, "pub.layers.annotation.annotationLayer": true, "pub.layers.graph.graphNode": true,
	}
	for {
		key := b.world.Keys[rng.IntN(len(b.world.Keys))]
		if around[key.Collection] {
			return "/api/v1/graph/nodes/" + url.PathEscape(key.String()) + "/neighborhood?depth=3"
		}
	}
}
