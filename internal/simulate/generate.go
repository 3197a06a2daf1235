package simulate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
)

// Script says what a [Generator] writes. The zero value is usable.
type Script struct {
	// Authors is how many accounts write the corpora. Zero means 4.
	Authors int
	// Documents is about how many texts each corpus has. Zero means 20, which
	// makes some 250 records.
	Documents int
	// Records is how many records the corpora may have together; zero sets no end.
	Records int
	// PerCommit is how many records are created in one commit, 1 to 200. Zero means 1.
	PerCommit int
	// Edits is how many commits in a hundred change earlier records: four updates
	// to a delete.
	Edits int
	// Live goes on with edits when Records are written, instead of ending.
	Live bool
	// Foreign is how many commits in a hundred are posts of other applications,
	// by accounts of their own, as most of a real relay's are.
	Foreign int
}

// ErrDone says that a script has come to its end.
var ErrDone = errors.New("nothing more to write")

// Generator writes corpora into a world, and edits them. What it does follows from
// the world's seed and the script.
type Generator struct {
	world  *World
	script Script
	rng    *rand.Rand
	maker  *fixture.Maker

	authors []syntax.DID
	posters []syntax.DID
	next    func() (fixture.Planned, bool)
	stop    func()
	created int
	posts   int
	queues  map[syntax.DID][]Write      // planned, not yet enough for a commit
	present map[syntax.DID][]record.Key // created and not deleted
}

const (
	foreignPosters    = 3
	foreignCollection = syntax.NSID("app.bsky.feed.post")
)

// NewGenerator makes the script's accounts in the world. Stop the generator in the end.
func NewGenerator(w *World, script Script) (*Generator, error) {
	setDefault(&script.Authors, 4)
	setDefault(&script.Documents, 20)
	setDefault(&script.PerCommit, 1)
	if script.PerCommit > maxWrites {
		return nil, fmt.Errorf("%d records a commit: %w", script.PerCommit, ErrTooBig)
	}
	g := &Generator{
		world: w, script: script, rng: rand.New(rand.NewPCG(w.cfg.Seed, 0x73637269707400)),
		maker:  fixture.New(w.cfg.Seed + 1),
		queues: map[syntax.DID][]Write{}, present: map[syntax.DID][]record.Key{},
	}
	posters := 0
	if script.Foreign > 0 {
		posters = foreignPosters
	}
	var err error
	if g.authors, err = createAccounts(w, "author", script.Authors); err != nil {
		return nil, err
	}
	if g.posters, err = createAccounts(w, "poster", posters); err != nil {
		return nil, err
	}
	g.next, g.stop = iter.Pull(fixture.Corpora(w.cfg.Seed, g.authors, script.Documents))
	return g, nil
}

func setDefault(n *int, standard int) {
	if *n == 0 {
		*n = standard
	}
}

func createAccounts(w *World, name string, n int) ([]syntax.DID, error) {
	var dids []syntax.DID
	for i := range n {
		did, err := w.CreateAccount(fmt.Sprintf("%s-%d", name, i+1))
		if err != nil {
			return nil, err
		}
		dids = append(dids, did)
	}
	return dids, nil
}

// Stop lets go of the generator's plan. The world stays as it is.
func (g *Generator) Stop() { g.stop() }

// Step publishes the next commit. At the end of the script it returns [ErrDone].
func (g *Generator) Step() (record.Commit, error) {
	if g.rng.IntN(100) < g.script.Foreign {
		return g.post()
	}
	if g.rng.IntN(100) < g.script.Edits {
		if c, err := g.edit(); !errors.Is(err, ErrDone) {
			return c, err
		}
	}
	did, writes := g.batch()
	if len(writes) > 0 {
		return g.create(did, writes)
	}
	if g.script.Live {
		return g.edit()
	}
	return record.Commit{}, ErrDone
}

// Run steps until the script or the context ends, at so many records a second; zero
// is as fast as it goes. The end of either is no error.
func (g *Generator) Run(ctx context.Context, recordsPerSecond float64) error {
	start, written := time.Now(), 0
	for ctx.Err() == nil {
		c, err := g.Step()
		if errors.Is(err, ErrDone) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("publish generated commit: %w", err)
		}
		if written += len(c.Ops); recordsPerSecond > 0 {
			due := start.Add(time.Duration(float64(written) / recordsPerSecond * float64(time.Second)))
			sleep(ctx, time.Until(due))
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// batch takes from the plan until some author has enough for a commit, or, at the
// plan's end, whatever is left.
func (g *Generator) batch() (syntax.DID, []Write) {
	for g.script.Records == 0 || g.created < g.script.Records {
		p, ok := g.next()
		if !ok {
			break
		}
		g.created++
		g.queues[p.Key.DID] = append(g.queues[p.Key.DID], Create(p.Key.Collection, p.Key.Rkey, p.Value))
		if queue := g.queues[p.Key.DID]; len(queue) >= g.script.PerCommit {
			g.queues[p.Key.DID] = nil
			return p.Key.DID, queue
		}
	}
	for _, did := range g.authors {
		if queue := g.queues[did]; len(queue) > 0 {
			g.queues[did] = nil
			return did, queue
		}
	}
	return "", nil
}

func (g *Generator) create(did syntax.DID, writes []Write) (record.Commit, error) {
	c, err := g.world.Commit(did, writes...)
	for _, op := range c.Ops {
		g.present[did] = append(g.present[did], op.Key)
	}
	return c, err
}

// edit changes up to PerCommit records of one author.
func (g *Generator) edit() (record.Commit, error) {
	did := g.authors[g.rng.IntN(len(g.authors))]
	if len(g.present[did]) == 0 {
		return record.Commit{}, ErrDone
	}
	var writes []Write
	taken := map[record.Key]bool{}
	for range 1 + g.rng.IntN(g.script.PerCommit) {
		keys := g.present[did]
		if len(keys) == 0 {
			break
		}
		i := g.rng.IntN(len(keys))
		key := keys[i]
		if taken[key] {
			continue
		}
		taken[key] = true
		if g.rng.IntN(5) == 0 {
			writes = append(writes, Delete(key.Collection, key.Rkey))
			keys[i] = keys[len(keys)-1]
			g.present[did] = keys[:len(keys)-1]
			continue
		}
		value, err := g.world.value(key)
		if err != nil {
			return record.Commit{}, err
		}
		writes = append(writes, Update(key.Collection, key.Rkey, g.maker.Revise(value)))
	}
	return g.world.Commit(did, writes...)
}

// value is a record as the world has it.
func (w *World) value(key record.Key) (map[string]any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(key.DID)
	if err != nil {
		return nil, err
	}
	c, err := a.tree.Get([]byte(key.Path()))
	if err == nil && c == nil {
		err = ErrNoRecord
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return atdata.UnmarshalCBOR(w.blocks[*c])
}

// post publishes a record that is none of ours.
func (g *Generator) post() (record.Commit, error) {
	g.posts++
	made := g.world.cfg.Start.Add(time.Duration(g.posts) * time.Second)
	return g.world.Commit(g.posters[g.rng.IntN(len(g.posters))],
		Create(foreignCollection, syntax.RecordKey(syntax.NewTIDFromTime(made, 7)), map[string]any{
			"$type": string(foreignCollection), "createdAt": timestamp(made), "langs": []any{"en"},
			"text": fmt.Sprintf("Post number %d, about nothing in particular.", g.posts),
		}))
}
