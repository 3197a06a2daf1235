package indexer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

type did = syntax.DID

// transaction is a batch on its way: the states that its events lead to, and what
// will be written.
type transaction struct {
	line   *line
	states map[did]*repoState
	holds  map[did]hold // nil as long as they are not touched
	out    store.Batch
	host   string
	seq    int64
	forget []did

	tally tally
}

// step takes the next event, in the order of the stream.
func (tx *transaction) step(ctx context.Context, s *slot) error {
	o := &s.outcome
	tx.host, tx.seq = s.frame.Host, max(tx.seq, o.event.Seq)
	if o.later && tx.states[o.did].known {
		// Its repository's first followed commit was still being examined when this event was.
		tx.line.verifyLate(ctx, s.frame, o)
	}
	if o.err != nil {
		return tx.failure(ctx, s.frame.Host, o.err)
	}
	switch {
	case o.event.Commit != nil:
		tx.commit(s)
	case o.event.Sync != nil && o.did != "":
		tx.sync(s)
	case o.event.Identity != nil && o.did != "" && tx.states[o.did].known:
		tx.forget = append(tx.forget, o.did)
	case o.event.Account != nil && o.did != "":
		tx.account(s)
	case o.event.Info != nil:
		tx.notice(ctx, s.frame.Host, o.event.Info.Name)
	}
	tx.out.DeadLetters = append(tx.out.DeadLetters, o.dead...)
	tx.tally.events++
	return nil
}

// notice takes an #info. OutdatedCursor says that the host does not have all events
// since our cursor any more.
func (tx *transaction) notice(ctx context.Context, host, name string) {
	tx.line.Logger.WarnContext(ctx, "notice from the host", "host", host, "name", name)
	if name == outdatedCursor {
		tx.out.Overrun = true
	}
}

// What a host says of our cursor: in an #info that events since it are gone, in an
// error frame that it lies ahead of all events.
const (
	outdatedCursor = "OutdatedCursor"
	futureCursor   = "FutureCursor"
)

// failure tells an error frame, after which the host closes the stream and we
// connect anew, from an error of our own. A host that has lost its sequence counts as
// one that does not have the events since our cursor.
func (tx *transaction) failure(ctx context.Context, host string, err error) error {
	var ended *firehose.StreamError
	if errors.As(err, &ended) {
		tx.line.Logger.ErrorContext(ctx, "the host ended the stream", "host", host, "name", ended.Name, "message", ended.Message)
		if ended.Name == futureCursor && tx.line.cursors.ahead(host) {
			tx.out.Overrun = true
		}
		return nil
	}
	return fmt.Errorf("examining an event of %s: %w", host, err)
}

// commit applies a commit if it holds and continues its repository; otherwise the
// repository counts as desynchronized until it is fetched whole.
func (tx *transaction) commit(s *slot) {
	o, state := &s.outcome, tx.states[s.outcome.did]
	switch {
	case state == nil || !o.inScope && !state.known, state.gone():
		tx.tally.skipped++
		o.dead = nil
	case state.sync == store.Resyncing:
		tx.hold(s)
	case o.refused != nil:
		tx.refuse(s)
	case state.known && o.verified.Commit.Rev <= state.rev:
		tx.tally.replayed++
		o.dead = nil
	case state.sync == store.Desynchronized && !state.healedBy(o.verified.Commit):
		tx.tally.desynchronized++
		tx.see(o.did, o.verified.Commit.Rev)
		o.dead = nil
	default:
		tx.follow(o, state)
	}
}

// follow takes the next commit of a repository, or the first that we see of it. One
// that is met in the middle of its history is fetched, where that can be done.
func (tx *transaction) follow(o *outcome, state *repoState) {
	c := o.verified.Commit
	breach := state.breach(c)
	if !state.known && !first(c) && tx.line.Resync != nil {
		breach = "it was met in the middle of its history"
	}
	if breach == "" {
		tx.extend(o, state)
		return
	}
	if !state.known {
		tx.line.handles.ask(c.DID)
	}
	tx.desynchronize(o.did, breach, c.Rev)
	if o.verified.PDS != "" && o.verified.PDS != state.pds {
		state.pds = o.verified.PDS
		tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: o.did, PDS: &state.pds})
	}
	o.dead = nil
}

// emptyTree is the root of a repository without records, as new accounts have it.
const emptyTree = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"

// first tells whether a commit is a repository's first, or the first with records.
func first(c record.Commit) bool { return c.Since == "" || c.PrevData == emptyTree }

// healedBy tells whether a commit continues exactly what the index has of a
// desynchronized repository, so that it need not be fetched: what broke the chain
// was no part of the repository, as a forged commit is not.
func (r *repoState) healedBy(c record.Commit) bool {
	return r.complete && r.rev != "" && c.Since == r.rev && c.PrevData == r.data && c.Rev > r.seen
}

// breach says how a commit fails to continue the repository, or nothing.
func (r *repoState) breach(c record.Commit) string {
	switch {
	case !r.known:
		return ""
	case c.PrevData != "" && c.PrevData != r.data:
		return fmt.Sprintf("prevData %s is not the last tree %s", c.PrevData, r.data)
	case c.Since != r.rev:
		return fmt.Sprintf("since %q is not the last rev %s", c.Since, r.rev)
	}
	return ""
}

func (tx *transaction) extend(o *outcome, state *repoState) {
	c := o.verified.Commit
	update := store.RepoUpdate{DID: c.DID, Rev: &c.Rev, CommitCID: &c.CID, Data: &c.Data}
	if state.sync != store.Synchronized {
		update.Sync = pointer(store.Synchronized)
	}
	if !state.known {
		state.complete = first(c)
		update.Complete = &state.complete
		state.account = store.Account{Active: true, Status: "active"}
		tx.line.handles.ask(c.DID)
	} else if update.Sync != nil {
		tx.line.Logger.Info("repository goes on where it was left", "did", c.DID, "rev", c.Rev)
		healed.Inc()
	}
	if o.verified.PDS != "" && o.verified.PDS != state.pds {
		state.pds = o.verified.PDS
		update.PDS = &o.verified.PDS
	}
	tx.out.Repos = append(tx.out.Repos, update)
	tx.out.Changes = append(tx.out.Changes, o.changes...)
	state.known, state.sync, state.rev, state.data = true, store.Synchronized, c.Rev, c.Data
	state.seen = max(state.seen, c.Rev)
	tx.tally.commits++
	tx.tally.changes(o.changes)
	tx.tally.lag = time.Since(c.Time)
}

func pointer[T any](v T) *T { return &v }

// refuse records a commit that does not hold.
func (tx *transaction) refuse(s *slot) {
	o := &s.outcome
	o.dead = []store.DeadLetter{{
		Host: s.frame.Host, Seq: o.event.Seq, DID: o.did, Stage: stageVerify,
		Class: string(o.refused.Reason), Reason: o.refused.Error(), Raw: s.frame.Data,
	}}
	refusals.WithLabelValues(string(o.refused.Reason)).Inc()
	tx.desynchronize(o.did, o.refused.Error(), "")
}

// sync takes the host's word, signed by the account, for what the tree is. One that
// does not hold says nothing: after a move to another host the first #sync may
// still carry the old key's commit.
func (tx *transaction) sync(s *slot) {
	o, state := &s.outcome, tx.states[s.outcome.did]
	switch {
	case !state.known || state.gone():
		tx.tally.skipped++
	case state.sync == store.Resyncing:
		tx.hold(s)
	case o.refused != nil:
		refusals.WithLabelValues(string(o.refused.Reason)).Inc()
	case o.synced.Rev < state.rev:
		tx.tally.replayed++
	case o.synced.Data != state.data:
		tx.desynchronize(o.did, fmt.Sprintf("#sync announces the tree %s, the last one was %s", o.synced.Data, state.data), o.synced.Rev)
		tx.see(o.did, o.synced.Rev)
	case state.sync == store.Synchronized, state.complete && o.synced.Rev >= state.seen:
		tx.confirm(o, state)
	}
}

// confirm takes a #sync with the tree that the index has.
func (tx *transaction) confirm(o *outcome, state *repoState) {
	if o.synced.Rev == state.rev && state.sync == store.Synchronized {
		return
	}
	update := store.RepoUpdate{DID: o.did, Rev: &o.synced.Rev, CommitCID: &o.synced.CID}
	if state.sync != store.Synchronized {
		update.Sync = pointer(store.Synchronized)
		healed.Inc()
	}
	state.sync, state.rev, state.seen = store.Synchronized, o.synced.Rev, max(state.seen, o.synced.Rev)
	tx.out.Repos = append(tx.out.Repos, update)
}

func (tx *transaction) handle(h checkedHandle) {
	if state := tx.states[h.did]; state.known && !state.gone() {
		tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: h.did, Handle: &h.handle})
	}
}

// desynchronize marks a repository to be fetched whole. seen is the rev of the
// verified commit that showed it; empty where none did.
func (tx *transaction) desynchronize(repo did, reason string, seen syntax.TID) {
	state := tx.states[repo]
	switch state.sync {
	case store.Desynchronized:
		tx.see(repo, seen)
		return
	case store.Resyncing:
		tx.spill(repo, reason)
		tx.see(repo, seen)
		return
	case store.Synchronized:
	}
	if !state.known {
		state.account = store.Account{Active: true, Status: "active"}
	}
	state.known, state.sync, state.seen = true, store.Desynchronized, max(state.seen, seen)
	tx.line.repos.track(repo)
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Sync: pointer(store.Desynchronized), Reason: &reason, Seen: &seen})
	tx.line.Logger.Warn("repository is desynchronized", "did", repo, "reason", reason)
	desynchronized.Inc()
}

// see notes the rev of a commit that holds, but is not applied.
func (tx *transaction) see(repo did, rev syntax.TID) {
	if state := tx.states[repo]; rev > state.seen {
		state.seen = rev
		tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Seen: &rev})
	}
}
