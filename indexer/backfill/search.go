package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// The ways in which a collection's repositories are found.
const (
	methodCollection = "com.atproto.sync.listReposByCollection"
	methodAll        = "com.atproto.sync.listRepos"
	methodNone       = "not followed"
	methodUnoffered  = "offered by no relay"
)

// everything is the search of all repositories, which is done once for all
// collections that no host lists by themselves.
const everything = syntax.NSID("*")

// ever is when the searches of a database begin that has had none: every repository
// that is whole counts as fetched since.
var ever = time.Unix(0, 0)

// searches returns those of the followed collections, after making those that are
// missing. One for a collection that is followed from now on begins now: a
// repository that was whole before may lack its records.
func (b *Backfill) searches(ctx context.Context) ([]store.Discovery, error) {
	known, err := b.cfg.Resyncs.Discoveries(ctx)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if len(known) == 0 {
		since = ever
	}
	made := false
	for _, collection := range b.cfg.Collections {
		if slices.ContainsFunc(known, func(d store.Discovery) bool { return d.Collection == collection }) {
			continue
		}
		if err := b.cfg.Resyncs.SaveDiscovery(ctx, store.Discovery{Collection: collection, StartedAt: since}); err != nil {
			return nil, err
		}
		made = true
	}
	if made {
		if known, err = b.cfg.Resyncs.Discoveries(ctx); err != nil {
			return nil, err
		}
	}
	return known, nil
}

// searchCollection asks the hosts in turn, beginning with the one that the search has
// come to, until one has listed all repositories with records of the collection.
func (b *Backfill) searchCollection(ctx context.Context, d store.Discovery) error {
	switch {
	case slices.Contains(b.cfg.Patterns, string(d.Collection)):
		return b.turnTo(ctx, d, methodAll)
	case !slices.Contains(b.cfg.Collections, d.Collection):
		d.FinishedAt = time.Now()
		return b.turnTo(ctx, d, methodNone)
	}
	d.Method = methodCollection
	err := b.atSomeHost(ctx, d, d.StartedAt)
	if errors.Is(err, errNotOffered) {
		return b.turnTo(ctx, d, methodAll)
	}
	return err
}

func (b *Backfill) turnTo(ctx context.Context, d store.Discovery, method string) error {
	d.Method, d.Host, d.Cursor = method, "", ""
	return unlessRestarted(b.cfg.Resyncs.SaveDiscovery(ctx, d))
}

// searchEverything lists all repositories for the collections that depend on it. It
// begins anew where one of them was started after it.
func (b *Backfill) searchEverything(ctx context.Context) error {
	all, err := b.cfg.Resyncs.Discoveries(ctx)
	if err != nil {
		return err
	}
	d := store.Discovery{Collection: everything}
	var dependents []store.Discovery
	for _, other := range all {
		switch {
		case other.Collection == everything:
			d = other
		case other.Method == methodAll && other.FinishedAt.IsZero():
			dependents = append(dependents, other)
		}
	}
	if len(dependents) == 0 {
		return nil
	}
	since := slices.MaxFunc(dependents, func(a, b store.Discovery) int { return a.StartedAt.Compare(b.StartedAt) }).StartedAt
	if d, err = b.beginEverything(ctx, d, since); err != nil {
		return err
	}
	if d.FinishedAt.IsZero() {
		err := b.atSomeHost(ctx, d, since)
		if errors.Is(err, errNotOffered) { // only what the stream tells of can be found
			return b.turnTo(ctx, d, methodUnoffered)
		}
		if err != nil {
			return err
		}
	}
	return b.settle(ctx, dependents)
}

// beginEverything makes or restarts the search of everything where it does not cover
// what happened before since.
func (b *Backfill) beginEverything(ctx context.Context, d store.Discovery, since time.Time) (store.Discovery, error) {
	switch {
	case d.StartedAt.IsZero():
		d.StartedAt = since
		if err := b.cfg.Resyncs.SaveDiscovery(ctx, d); err != nil {
			return d, err
		}
	case d.StartedAt.Before(since):
		if err := b.cfg.Resyncs.RestartDiscoveries(ctx, everything); err != nil {
			return d, err
		}
	}
	all, err := b.cfg.Resyncs.Discoveries(ctx)
	if err != nil {
		return d, err
	}
	at := slices.IndexFunc(all, func(d store.Discovery) bool { return d.Collection == everything })
	if at < 0 {
		return d, errors.New("the search of all repositories is gone")
	}
	d = all[at]
	d.Method = methodAll
	return d, nil
}

// settle ends the searches that the search of everything has done the work of, once
// that is finished.
func (b *Backfill) settle(ctx context.Context, dependents []store.Discovery) error {
	all, err := b.cfg.Resyncs.Discoveries(ctx)
	if err != nil {
		return err
	}
	for _, whole := range all {
		if whole.Collection != everything || whole.FinishedAt.IsZero() {
			continue
		}
		for _, d := range dependents {
			d.Host, d.Found, d.FinishedAt = whole.Host, whole.Found, whole.FinishedAt
			if err := unlessRestarted(b.cfg.Resyncs.SaveDiscovery(ctx, d)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unlessRestarted passes over a search that was started anew: the next look finds it.
func unlessRestarted(err error) error {
	if errors.Is(err, store.ErrRestarted) {
		return nil
	}
	return err
}

// atSomeHost takes a search to its end at one host. errNotOffered says that no host
// offers the method.
func (b *Backfill) atSomeHost(ctx context.Context, d store.Discovery, since time.Time) error {
	var failed []error
	offered := false
	for _, host := range b.order(d.Host) {
		if host != d.Host {
			d.Host, d.Cursor, d.Found = host, "", 0 // cursors are a host's own
		}
		err := b.unlessLacked(ctx, &d, since)
		if err == nil || errors.Is(err, store.ErrRestarted) || ctx.Err() != nil {
			return unlessRestarted(err)
		}
		offered = offered || !errors.Is(err, errNotOffered)
		failed = append(failed, err)
	}
	if !offered {
		return fmt.Errorf("%s: %w", d.Method, errNotOffered)
	}
	return errors.Join(slices.DeleteFunc(failed, func(err error) bool { return errors.Is(err, errNotOffered) })...)
}

// lackedFor is how long a host is not asked again for a method that it does not offer.
const lackedFor = time.Hour

// unlessLacked lists, unless the host has lately said that it cannot.
func (b *Backfill) unlessLacked(ctx context.Context, d *store.Discovery, since time.Time) error {
	key := d.Host + " " + d.Method
	if at, ok := b.lacked[key]; ok && time.Since(at) < lackedFor {
		return errNotOffered
	}
	delete(b.lacked, key)
	err := b.list(ctx, d, since)
	if errors.Is(err, errNotOffered) && !errors.Is(err, errRefused) {
		b.lacked[key] = time.Now()
		b.cfg.Logger.InfoContext(ctx, "a relay does not list repositories this way", "host", d.Host, "method", d.Method, "error", err)
	}
	return err
}

// order is the hosts with the one first that a search has come to.
func (b *Backfill) order(current string) []string {
	hosts := slices.Clone(b.cfg.Hosts)
	if at := slices.Index(hosts, current); at > 0 {
		hosts = slices.Insert(slices.Delete(hosts, at, at+1), 0, current)
	}
	return hosts
}

// list goes through a host's pages from the search's cursor on. The repositories of a
// page are asked for before the cursor moves past it.
func (b *Backfill) list(ctx context.Context, d *store.Discovery, since time.Time) error {
	b.cfg.Logger.DebugContext(ctx, "searching for repositories", "collection", d.Collection, "host", d.Host, "method", d.Method, "cursor", d.Cursor)
	for {
		next, err := b.page(ctx, *d)
		if errors.Is(err, errRefused) && d.Cursor != "" {
			b.cfg.Logger.WarnContext(ctx, "the host does not know the cursor any more, beginning anew", "host", d.Host, "collection", d.Collection, "error", err)
			d.Cursor, d.Found = "", 0
			continue
		}
		if errors.Is(err, errRefused) { // so does a PDS with a method that it knows of no service for
			return fmt.Errorf("%w: %w", errNotOffered, err)
		}
		if err != nil {
			return err
		}
		if err := b.take(ctx, d, next, since); err != nil {
			return err
		}
		if !d.FinishedAt.IsZero() {
			b.cfg.Logger.InfoContext(ctx, "repositories are found", "collection", d.Collection, "host", d.Host, "found", d.Found)
			return nil
		}
		if err := pause(ctx, b.cfg.Pause); err != nil {
			return err
		}
	}
}

// take asks for the repositories of a page that are not whole yet and moves the
// search past it.
func (b *Backfill) take(ctx context.Context, d *store.Discovery, p page, since time.Time) error {
	dids := p.dids()
	missing, err := b.cfg.Resyncs.Incomplete(ctx, dids, since)
	if err != nil {
		return err
	}
	wanted := make([]store.Wanted, len(missing))
	for i, did := range missing {
		wanted[i] = store.Wanted{DID: did, Reason: "found by " + reason(*d), Candidate: d.Method == methodAll}
	}
	added, err := b.cfg.Resyncs.Add(ctx, wanted)
	if err != nil {
		return err
	}
	d.Found += len(dids)
	if p.Cursor == "" || p.Cursor == d.Cursor { // the end, or a host that would go in a circle
		d.FinishedAt = time.Now()
	}
	d.Cursor = p.Cursor
	if err := b.cfg.Resyncs.SaveDiscovery(ctx, *d); err != nil {
		return err
	}
	listed.WithLabelValues(method(d.Method)).Add(float64(len(dids)))
	asked.Add(float64(added))
	return nil
}

func reason(d store.Discovery) string {
	if d.Method == methodAll {
		return "listing all repositories"
	}
	return "listing " + string(d.Collection)
}

// method is the method's own name, without its namespace.
func method(nsid string) string { return nsid[strings.LastIndexByte(nsid, '.')+1:] }
