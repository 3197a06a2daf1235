package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/appview"
	"github.com/layers-pub/layers-appview/appview/admin"
	"github.com/layers-pub/layers-appview/appview/caller"
	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// adminFlags are those of a process with routes for operators.
func adminFlags() []cli.Flag {
	return []cli.Flag{
		publicURLFlag(), adminDIDsFlag(),
		secretOf(categoryServe, "admin-token", "LAYERS_ADMIN_TOKEN", "token of operators for /api/v1/admin on the metrics address, 32 characters or more; without it, and without --admin-dids, there is no such route"),
	}
}

// admin makes the routes for operators; nil where nobody is named as one.
func (p *parts) admin(ctx context.Context) (*admin.Service, error) {
	did, fragment, err := appview.Identity(p.cfg.PublicURL, p.cfg.Listen)
	if err != nil {
		return nil, err
	}
	log := p.adminLog()
	operators := caller.NewOperators(caller.OperatorConfig{
		Token: p.cfg.AdminToken, Spend: log.Spend,
		Config: caller.Config{DID: did, Fragment: fragment, Directory: p.directory(), Admins: p.cfg.Admins},
	})
	if operators == nil {
		return nil, nil
	}
	return admin.New(admin.Deps{
		Operators: operators, Log: log, Letters: store.NewDeadLetters(p.pool), Resyncs: store.NewResyncs(p.pool),
		Reindex: &reindexer{parts: p, ctx: ctx}, Version: version, Logger: p.logger.With("component", "admin"),
	}), nil
}

// reindexer builds projections in the background of a process.
type reindexer struct {
	*parts
	ctx context.Context // of the process

	mu     sync.Mutex
	last   admin.Reindex
	cancel context.CancelFunc // of what runs
	ended  chan struct{}      // closed when it has ended
}

// Start begins to build, unless something is being built.
func (r *reindexer) Start(ctx context.Context, targets []record.Target, by store.AdminAction) error {
	if targets == nil {
		targets = r.targets()
	}
	for _, target := range targets {
		if !slices.Contains(r.targets(), target) {
			return fmt.Errorf("%q: %w, but %v", target, admin.ErrUnknownTarget, r.targets())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.Running {
		return admin.ErrRunning
	}
	by.Outcome = store.Begun
	if err := r.adminLog().Note(ctx, by); err != nil {
		return err
	}
	began := time.Now().UTC()
	r.last = admin.Reindex{Running: true, StartedAt: &began}
	running, cancel := context.WithCancel(r.ctx)
	r.cancel, r.ended = cancel, make(chan struct{})
	go r.run(running, targets, by)
	return nil
}

func (r *reindexer) run(ctx context.Context, targets []record.Target, by store.AdminAction) {
	report, err := r.reindex(ctx, targets, nil, io.Discard, func(rebuild.Progress) {})
	by.Outcome, by.Detail = store.Done, fmt.Sprintf("%d differences", int64(len(report.Differences))+report.Unlisted)
	if err != nil {
		by.Outcome, by.Detail = store.Failed, err.Error()
	}
	if err := r.adminLog().Note(context.WithoutCancel(ctx), by); err != nil {
		r.logger.ErrorContext(ctx, "the end of a reindex is not noted", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now().UTC()
	r.last.Running, r.last.EndedAt = false, &now
	if err != nil {
		r.last.Error = "it failed, or was stopped; the log of actions says why"
	} else {
		n := int64(len(report.Differences)) + report.Unlisted
		r.last.Differences = &n
	}
	r.cancel()
	close(r.ended)
}

// Status tells how far it has come.
func (r *reindexer) Status(ctx context.Context) (admin.Reindex, error) {
	r.mu.Lock()
	status := r.last
	r.mu.Unlock()
	status.Projections = []admin.Projection{}
	for _, target := range r.targets() {
		at, err := store.NewRebuilds(r.pool).Get(ctx, target)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return status, err
		}
		step := "fill"
		switch {
		case at.Promoted:
			step = "end"
		case at.Filled:
			step = "follow"
		}
		status.Projections = append(status.Projections, admin.Projection{Target: string(target), StartedAt: at.StartedAt.UTC(), Done: at.Done, Total: at.Total, Step: step})
	}
	return status, nil
}

// Abort stops what runs here, and drops what has been built by whatever process.
func (r *reindexer) Abort(ctx context.Context) error {
	r.mu.Lock()
	ended := r.ended
	if r.last.Running {
		r.cancel()
	}
	r.mu.Unlock()
	if ended != nil {
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	anew, _ := buildable(r.targets(), nil)
	return r.abortRebuilds(ctx, io.Discard, anew)
}
