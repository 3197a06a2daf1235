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
	if o.event.Commit != nil && o.later && tx.states[o.did].known {
		// Its repository's first followed commit was still being examined when this one was.
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
	case o.event.Identity != nil && o.did != "":
		tx.forget = append(tx.forget, o.did)
	case o.event.Account != nil && o.did != "":
		tx.account(o)
	case o.event.Info != nil:
		tx.line.Logger.WarnContext(ctx, "notice from the host", "host", s.frame.Host, "name", o.event.Info.Name)
	}
	tx.out.DeadLetters = append(tx.out.DeadLetters, o.dead...)
	tx.tally.events++
	return nil
}

// failure tells an error frame, after which the host closes the stream and we
// connect anew, from an error of our own.
func (tx *transaction) failure(ctx context.Context, host string, err error) error {
	var ended *firehose.StreamError
	if errors.As(err, &ended) {
		tx.line.Logger.ErrorContext(ctx, "the host ended the stream", "host", host, "name", ended.Name, "message", ended.Message)
		return nil
	}
	return fmt.Errorf("examining an event of %s: %w", host, err)
}

// commit applies a commit if it holds and continues its repository; otherwise the
// repository counts as desynchronized until it is fetched whole.
func (tx *transaction) commit(s *slot) {
	o, state := &s.outcome, tx.states[s.outcome.did]
	switch {
	case state == nil || !o.inScope && !state.known:
		tx.tally.skipped++
	case o.refused != nil:
		tx.refuse(s)
	case state.sync == store.Desynchronized:
		tx.tally.desynchronized++
		o.dead = nil
	case state.known && o.verified.Commit.Rev <= state.rev:
		tx.tally.replayed++
		o.dead = nil
	default:
		if breach := state.breach(o.verified.Commit); breach != "" {
			tx.desynchronize(o.did, breach)
			o.dead = nil
			return
		}
		tx.extend(o, state)
	}
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
	if !state.known {
		sync := store.Synchronized
		update.Sync = &sync
		whole := c.Since == ""
		update.Complete = &whole
		tx.line.handles.ask(c.DID)
	}
	if o.verified.PDS != "" && o.verified.PDS != state.pds {
		update.PDS = &o.verified.PDS
	}
	tx.out.Repos = append(tx.out.Repos, update)
	tx.out.Changes = append(tx.out.Changes, o.changes...)
	*state = repoState{known: true, sync: store.Synchronized, rev: c.Rev, data: c.Data, pds: o.verified.PDS}
	tx.tally.commits++
	tx.tally.changes(o.changes)
	tx.tally.lag = time.Since(c.Time)
}

// refuse records a commit that does not hold.
func (tx *transaction) refuse(s *slot) {
	o := &s.outcome
	o.dead = []store.DeadLetter{{
		Host: s.frame.Host, Seq: o.event.Seq, DID: o.did, Stage: stageVerify,
		Class: string(o.refused.Reason), Reason: o.refused.Error(), Raw: s.frame.Data,
	}}
	refusals.WithLabelValues(string(o.refused.Reason)).Inc()
	tx.desynchronize(o.did, o.refused.Error())
}

// sync takes the host's word, signed by the account, for what the tree is. One that
// does not hold says nothing: after a move to another host the first #sync may
// still carry the old key's commit.
func (tx *transaction) sync(s *slot) {
	o, state := &s.outcome, tx.states[s.outcome.did]
	switch {
	case o.refused != nil:
		refusals.WithLabelValues(string(o.refused.Reason)).Inc()
	case state.known && o.synced.Rev >= state.rev && o.synced.Data != state.data:
		tx.desynchronize(o.did, fmt.Sprintf("#sync announces the tree %s, the last one was %s", o.synced.Data, state.data))
	case state.known && o.synced.Rev > state.rev && state.sync == store.Synchronized:
		state.rev = o.synced.Rev
		tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: o.did, Rev: &state.rev, CommitCID: &o.synced.CID})
	}
}

func (tx *transaction) account(o *outcome) {
	if !tx.states[o.did].known {
		return
	}
	msg := o.event.Account
	status := "active"
	if !msg.Active {
		status = "inactive"
		if msg.Status != nil && *msg.Status != "" {
			status = *msg.Status
		}
	}
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: o.did, Active: &msg.Active, Status: &status, Seq: &msg.Seq})
}

func (tx *transaction) handle(h checkedHandle) {
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: h.did, Handle: &h.handle})
}

func (tx *transaction) desynchronize(repo did, reason string) {
	state := tx.states[repo]
	if state.sync == store.Desynchronized {
		return
	}
	state.known, state.sync = true, store.Desynchronized
	tx.line.repos.track(repo)
	sync := store.Desynchronized
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Sync: &sync, Reason: &reason})
	tx.line.Logger.Warn("repository is desynchronized", "did", repo, "reason", reason)
	desynchronized.Inc()
}
