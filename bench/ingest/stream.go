package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/cache"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// edition changes when what a stream holds does; older recordings are then made anew.
const edition = 1

// recording is a stream on disk.
type recording struct {
	dir   string
	facts facts
}

// facts are what a recording holds.
type facts struct {
	Commits int   `json:"commits"`
	Changes int   `json:"records"` // created, changed and deleted; of followed collections
	Bytes   int64 `json:"bytes"`   // of all frames
	LastSeq int64 `json:"lastSeq"`
	Present int   `json:"present"` // records that an index must hold in the end
}

// scripts are the streams that a generator writes. Fifty accounts write them, so that
// a transaction touches many repositories, as on a relay.
func (b *bench) script(name string) (simulate.Script, bool) {
	script, ok := map[string]simulate.Script{
		"warm":    {Records: 2_000},
		"single":  {Records: int(50_000 * b.scale)},
		"hundred": {Records: int(50_000 * b.scale), PerCommit: 100},
		"relay":   {Records: int(5_000 * b.scale), Foreign: 95}, // most of a relay's commits are not ours
	}[name]
	script.Authors, script.Edits = 50, 10
	return script, ok
}

// record finds a stream in the cache or makes it.
func (b *bench) record(ctx context.Context, name string) (recording, error) {
	size := b.scale
	if name == "warm" {
		size = 1
	}
	entry := fmt.Sprintf("bench-stream-%d-%s-%g", edition, name, size)
	dir, err := cache.Install(entry, func(dir string) error {
		b.say("recording the stream %q", name)
		return b.fill(ctx, name, dir)
	})
	if err != nil {
		return recording{}, err
	}
	r := recording{dir: dir}
	raw, err := os.ReadFile(filepath.Join(dir, factsFile))
	if err != nil {
		return r, fmt.Errorf("read what %s holds: %w", entry, err)
	}
	if err := json.Unmarshal(raw, &r.facts); err != nil {
		return r, fmt.Errorf("read what %s holds: %w", entry, err)
	}
	return r, nil
}

// seeds make the streams' accounts different ones, since the warm-up is indexed into
// the same stores as what is measured.
var seeds = map[string]uint64{"warm": 1, "single": 2, "hundred": 3, "large": 4, "relay": 5}

const factsFile = "bench.json"

// fill writes a recording into an empty directory.
func (b *bench) fill(ctx context.Context, name, dir string) error {
	world, err := simulate.NewWorld(simulate.Config{Seed: seeds[name], Dir: dir})
	if err != nil {
		return err
	}
	defer world.Close()
	f := facts{}
	if name == "large" {
		err = b.writeLarge(world, &f)
	} else if script, ok := b.script(name); ok {
		err = writeScript(ctx, world, script, &f)
	} else {
		err = errors.New("no such stream")
	}
	if err != nil {
		return err
	}
	if err := world.Save(dir); err != nil {
		return err
	}
	saved, err := simulate.Open(dir)
	if err != nil {
		return err
	}
	defer saved.Close()
	for range saved.Records() {
		f.Present++
	}
	f.LastSeq = saved.LastSeq()
	info, err := os.Stat(filepath.Join(dir, "frames.bin"))
	if err != nil {
		return err
	}
	f.Bytes = info.Size()
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, factsFile), raw, 0o644)
}

func writeScript(ctx context.Context, world *simulate.World, script simulate.Script, f *facts) error {
	generator, err := simulate.NewGenerator(world, script)
	if err != nil {
		return err
	}
	defer generator.Stop()
	for ctx.Err() == nil {
		c, err := generator.Step()
		if errors.Is(err, simulate.ErrDone) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Commits++
		for _, op := range c.Ops {
			if strings.HasPrefix(string(op.Key.Collection), "pub.layers.") {
				f.Changes++
			}
		}
	}
	return ctx.Err()
}

// largest is near the 1,000,000 bytes that a record may have.
const largest = 950_000

// writeLarge writes records of nearly the size that is allowed: texts, and layers of
// some thousand annotations.
func (b *bench) writeLarge(world *simulate.World, f *facts) error {
	maker := fixture.New(1)
	authors := make([]syntax.DID, 5)
	for i := range authors {
		var err error
		if authors[i], err = world.CreateAccount(fmt.Sprintf("author-%d", i+1)); err != nil {
			return err
		}
	}
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range int(300 * b.scale) {
		collection, value, err := largeRecord(maker, i)
		if err != nil {
			return err
		}
		rkey := syntax.RecordKey(syntax.NewTIDFromTime(start.Add(time.Duration(i)*time.Second), 1))
		if _, err := world.Commit(authors[i%len(authors)], simulate.Create(collection, rkey, value)); err != nil {
			return err
		}
		f.Commits, f.Changes = f.Commits+1, f.Changes+1
	}
	return nil
}

func largeRecord(maker *fixture.Maker, number int) (syntax.NSID, map[string]any, error) {
	const texts, layers = syntax.NSID("pub.layers.expression.expression"), syntax.NSID("pub.layers.annotation.annotationLayer")
	if number%2 == 0 {
		sentence := fmt.Sprintf("Sentence %d of a long text, which goes on and on. ", number)
		return texts, maker.Record(texts, map[string]any{"text": strings.Repeat(sentence, largest/len(sentence))}), nil
	}
	value := maker.Record(layers)
	some, ok := value["annotations"].([]any)
	if !ok || len(some) == 0 {
		return "", nil, errors.New("the layer that was made has no annotations")
	}
	encoded, err := atdata.MarshalCBOR(map[string]any{"annotations": some})
	if err != nil {
		return "", nil, err
	}
	var many []any
	for range largest / len(encoded) {
		many = append(many, some...)
	}
	value["annotations"] = many
	return layers, value, nil
}
