// Package replay puts dead letters through again when that is asked for, as after
// a change of a lexicon or of the program. It runs beside the line, in the process
// that holds the writer's lock.
//
// What is done depends on where the letter was given up. A record that its lexicon
// refused is checked again on its bytes, and written with the letter's removal. A
// commit that did not hold leaves a repository that has to be fetched: that is
// queued, and the fetch settles the letter. A projection is put into the outbox
// once more, and the worker's verdict is waited for.
package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// The stages of dead letters, as the line and the workers name them.
const (
	validateStage = "validate"
	projectStage  = "project:" // and the name of the projection
)

// part is how many letters are taken together; a record has up to 1 MB.
const part = 16

var (
	waiting = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_dead_letters", Help: "Dead letters that are kept, by stage.",
	}, []string{"stage"})
	replays = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_dead_letter_replays_total", Help: "Dead letters put through again, by stage and outcome: replayed, failed, queued or postponed.",
	}, []string{"stage", "outcome"})
)

// Config is what replays need.
type Config struct {
	Catalog *catalog.Catalog
	Letters *store.DeadLetters
	// Apply is that of the one writer.
	Apply func(context.Context, store.Batch) error
	// Resync queues a repository to be fetched whole.
	Resync func(ctx context.Context, did syntax.DID, reason string) error
	Logger *slog.Logger

	Every      time.Duration // between two looks for requests; 1 s
	CountEvery time.Duration // between two counts for the metric; 15 s
}

// Replayer carries out what [store.DeadLetters.Request] asks for.
type Replayer struct {
	cfg     Config
	counted time.Time
}

// New makes a replayer; Run starts it.
func New(cfg Config) *Replayer {
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.CountEvery <= 0 {
		cfg.CountEvery = 15 * time.Second
	}
	return &Replayer{cfg: cfg}
}

// Run puts letters through until ctx ends or the writer's lock is lost. A store that
// fails is tried again.
func (r *Replayer) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()
	for {
		err := r.Once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrLockLost):
			return err
		case err != nil:
			r.cfg.Logger.ErrorContext(ctx, "replaying dead letters failed, will repeat", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Once takes the requests that are there, and settles those that have come to an end.
func (r *Replayer) Once(ctx context.Context) error {
	if err := r.count(ctx); err != nil {
		return err
	}
	settled, err := r.cfg.Letters.SettleProjected(ctx)
	if err != nil {
		return err
	}
	replays.WithLabelValues("project", "replayed").Add(float64(settled))
	if err := r.cfg.Letters.AwaitFetches(ctx); err != nil {
		return err
	}
	letters, err := r.cfg.Letters.Requested(ctx, validateStage, part)
	if err != nil {
		return err
	}
	var checked []store.Change
	for _, letter := range letters {
		change, err := r.replay(ctx, letter)
		if err != nil {
			return fmt.Errorf("replaying dead letter %d: %w", letter.ID, err)
		}
		if change != nil {
			checked = append(checked, *change)
		}
	}
	return r.write(ctx, checked)
}

// replay begins with one letter. A record that is valid now is returned to be written.
func (r *Replayer) replay(ctx context.Context, d store.DeadLetter) (*store.Change, error) {
	target, projection := strings.CutPrefix(d.Stage, projectStage)
	switch {
	case projection:
		return nil, r.project(ctx, d, record.Target(target))
	case d.Stage == validateStage:
		return r.validate(ctx, d)
	case d.DID == "":
		return nil, r.fail(ctx, d, "names no repository that could be fetched")
	}
	if _, err := syntax.ParseDID(string(d.DID)); err != nil {
		return nil, r.fail(ctx, d, "names no repository that could be fetched")
	}
	if err := r.cfg.Resync(ctx, d.DID, fmt.Sprintf("dead letter %d is replayed", d.ID)); err != nil {
		return nil, err
	}
	replays.WithLabelValues(d.Stage, "queued").Inc()
	return nil, r.cfg.Letters.Await(ctx, d.ID, "waits until its repository has been fetched")
}

// validate holds a record to its lexicon as it is today.
func (r *Replayer) validate(ctx context.Context, d store.DeadLetter) (*store.Change, error) {
	key := record.Key{DID: d.DID, Collection: d.Collection, Rkey: d.Rkey}
	if sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(d.Raw); err != nil || sum.String() != string(d.CID) {
		return nil, r.fail(ctx, d, "its bytes do not have its CID")
	}
	checked, err := r.cfg.Catalog.Check(key, d.Raw)
	if err != nil {
		d.Reason, d.Path, d.Expected, d.Received = err.Error(), "", "", ""
		var invalid *catalog.Invalid
		if errors.As(err, &invalid) {
			d.Reason, d.Path, d.Expected, d.Received = invalid.Reason, invalid.Path, invalid.Expected, invalid.Received
		}
		return nil, r.fail(ctx, d, "is still not valid")
	}
	return &store.Change{
		Action: record.Create, Key: key, Rev: d.Rev, CID: d.CID, DeadLetter: d.ID,
		JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
	}, nil
}

// project has a projection tried again.
func (r *Replayer) project(ctx context.Context, d store.DeadLetter, target record.Target) error {
	ok, err := r.cfg.Letters.Project(ctx, d, target)
	if err != nil || ok {
		return err
	}
	return r.fail(ctx, d, "its projection is not configured for this collection")
}

// write stores records that are valid now. Where the store refuses them, each is
// tried alone.
func (r *Replayer) write(ctx context.Context, changes []store.Change) error {
	if len(changes) == 0 {
		return nil
	}
	err := r.cfg.Apply(ctx, store.Batch{Changes: changes})
	switch {
	case errors.Is(err, store.ErrRejected) && len(changes) == 1:
		d, getErr := r.cfg.Letters.Get(ctx, changes[0].DeadLetter)
		if getErr != nil {
			return getErr
		}
		return r.fail(ctx, d, err.Error())
	case errors.Is(err, store.ErrRejected):
		for i := range changes {
			if err := r.write(ctx, changes[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case err != nil:
		return err
	}
	ids := make([]int64, len(changes))
	for i, c := range changes {
		ids[i] = c.DeadLetter
	}
	replays.WithLabelValues(validateStage, "replayed").Add(float64(len(changes)))
	// Those that are still there were passed over.
	return r.cfg.Letters.Postpone(ctx, ids, "waits until its repository is synchronized")
}

func (r *Replayer) fail(ctx context.Context, d store.DeadLetter, outcome string) error {
	replays.WithLabelValues(d.Stage, "failed").Inc()
	r.cfg.Logger.InfoContext(ctx, "replay of a dead letter failed", "id", d.ID, "outcome", outcome, "reason", d.Reason)
	return r.cfg.Letters.Fail(ctx, d, outcome)
}

// count shows how many letters there are.
func (r *Replayer) count(ctx context.Context) error {
	if time.Since(r.counted) < r.cfg.CountEvery {
		return nil
	}
	stages, err := r.cfg.Letters.CountByStage(ctx)
	if err != nil {
		return err
	}
	waiting.Reset()
	for stage, n := range stages {
		waiting.WithLabelValues(stage).Set(float64(n))
	}
	r.counted = time.Now()
	return nil
}
