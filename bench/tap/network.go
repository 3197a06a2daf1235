package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

const collection = syntax.NSID("pub.layers.corpus.corpus")

// network is what is followed: relay, PLC directory and PDS on one address.
type network struct {
	world      *simulate.World
	server     *simulate.Server
	generator  *simulate.Generator
	heads      map[syntax.DID]syntax.TID
	subscribed atomic.Int64 // when somebody last did, in nanoseconds

	commits, operations int // so far
	introductions       int
}

// backlog is what a follower has missed.
type backlog struct{ commits, operations int }

func (n *network) since(b backlog) backlog {
	return backlog{n.commits - b.commits, n.operations - b.operations}
}

// newNetwork has accounts with one record each.
func newNetwork(o options, seed uint64) (*network, error) {
	n := &network{heads: map[syntax.DID]syntax.TID{}}
	var err error
	if n.world, err = simulate.NewWorld(simulate.Config{Seed: seed}); err != nil {
		return nil, err
	}
	n.generator, err = simulate.NewGenerator(n.world, simulate.Script{
		Authors: o.authors, Records: o.commits * o.perCommit, PerCommit: o.perCommit, Edits: 10,
	})
	if err != nil {
		return nil, errors.Join(err, n.world.Close())
	}
	n.server = simulate.NewServer(n.world, simulate.ServerConfig{Subscribe: func(int64) simulate.Delivery {
		n.subscribed.Store(time.Now().UnixNano())
		return func(_ context.Context, f simulate.Frame) ([]simulate.Frame, error) { return []simulate.Frame{f}, nil }
	}})
	if err := errors.Join(n.server.Start("127.0.0.1:0"), n.touch("3laaaaaaaaaaa")); err != nil {
		return nil, errors.Join(err, n.world.Close())
	}
	return n, nil
}

// touch has each account write one record.
func (n *network) touch(rkey syntax.RecordKey) error {
	for _, did := range n.world.Accounts() {
		value := map[string]any{"$type": string(collection), "name": "one of each", "createdAt": "2026-01-01T00:00:00Z"}
		c, err := n.world.Commit(did, simulate.Create(collection, rkey, value))
		if err != nil {
			return fmt.Errorf("write a record: %w", err)
		}
		n.add(c)
	}
	return nil
}

func (n *network) add(c record.Commit) {
	n.heads[c.DID] = c.Rev
	n.commits, n.operations = n.commits+1, n.operations+len(c.Ops)
}

// introduce runs a follower until it knows all repositories and has noted a cursor, and
// returns what there was until then.
func (n *network) introduce(ctx context.Context, f follower) (backlog, error) {
	if err := f.start(ctx); err != nil {
		return backlog{}, err
	}
	err := n.await(ctx, f, f.compare)
	if err == nil { // a cursor comes with an event
		n.introductions++
		if err = n.touch(syntax.RecordKey(fmt.Sprintf("3lbaaaaaaaa%02d", n.introductions))); err == nil {
			err = n.await(ctx, f, f.compare)
		}
	}
	time.Sleep(2 * time.Second) // tap notes its cursor now and then
	return backlog{n.commits, n.operations}, errors.Join(err, f.stop())
}

const awaitTime = 10 * time.Minute

// await asks until there is no error any more.
func (n *network) await(ctx context.Context, f follower, is func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	for {
		err := is(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after %s: %w", f.name(), awaitTime, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// write makes what is caught up with.
func (n *network) write() error {
	for {
		c, err := n.generator.Step()
		if errors.Is(err, simulate.ErrDone) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("write the stream: %w", err)
		}
		n.add(c)
	}
}

// measure runs a follower over what it has missed.
func (n *network) measure(ctx context.Context, f follower, missed backlog) (took, used time.Duration, err error) {
	n.subscribed.Store(0)
	if err := f.start(ctx); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	err = n.await(ctx, f, func(context.Context) error {
		if n.subscribed.Load() == 0 {
			return errors.New("has not subscribed")
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	before := f.used()
	err = n.await(ctx, f, func(ctx context.Context) error {
		if done, err := f.caughtUp(ctx, missed.commits); err != nil || !done {
			return errors.Join(errors.New("has not caught up"), err)
		}
		return f.compare(ctx)
	})
	return time.Since(time.Unix(0, n.subscribed.Load())), f.used() - before, err
}

func (n *network) close() {
	n.generator.Stop()
	_ = n.server.Stop()
	_ = n.world.Close()
}
