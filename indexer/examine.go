package indexer

import (
	"context"
	"errors"
	"strings"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// outcome is what the parallel stage found out about a frame; everything that needs
// the state of a repository is left to the stage in order.
type outcome struct {
	event   firehose.Event // of a commit only that it is one
	did     syntax.DID     // the repository concerned; empty where the event concerns none of ours
	inScope bool           // a commit with ops on followed collections

	verified verify.Verified    // of a commit that holds
	synced   record.Commit      // of a #sync that holds
	changes  []store.Change     // the commit's valid records and its deletes
	dead     []store.DeadLetter // its invalid records, or what did not decode
	refused  *verify.Error      // why a commit or #sync does not hold
	later    bool               // verify only if the repository turns out to be followed
	err      error              // the stream's end, or a failure of our own
}

// examine decodes a frame and does all that can be done without order.
func (l *line) examine(ctx context.Context, frame firehose.Frame) outcome {
	event, err := frame.Decode()
	o := outcome{event: event}
	var ended *firehose.StreamError
	switch {
	case errors.As(err, &ended):
		o.err = ended
	case err != nil:
		o.dead = []store.DeadLetter{{Host: frame.Host, Stage: stageFrame, Class: "malformed", Reason: err.Error(), Raw: frame.Data}}
	case event.Commit != nil:
		l.examineCommit(ctx, frame.Host, &o)
		// Outcomes wait by the thousand for their turn: what is needed of the commit is in
		// the changes now, and the frame has all of it.
		*event.Commit, o.verified.Commit.Ops = comatproto.SyncSubscribeRepos_Commit{}, nil
	case event.Sync != nil:
		if l.concerns(&o, event.Sync.Did) {
			l.verifySync(ctx, &o)
		}
	case event.Identity != nil:
		l.concerns(&o, event.Identity.Did)
	case event.Account != nil:
		l.concerns(&o, event.Account.Did)
	}
	return o
}

// concerns notes whom an event is about, and tells whether we follow the repository.
// Where we do not, its first commit may be on the way: that shows in order.
func (l *line) concerns(o *outcome, raw string) bool {
	did, err := syntax.ParseDID(raw)
	if err != nil {
		return false
	}
	o.did, o.later = did, !l.repos.tracked(did)
	return !o.later
}

func (l *line) verifySync(ctx context.Context, o *outcome) {
	var err error
	o.synced, err = l.Verifier.Sync(ctx, o.event.Sync)
	o.settle(err)
}

// examineCommit looks at paths first: most of the network's commits concern no
// followed collection, and cost no verification. Those of followed repositories are
// verified all the same, since each is a link of the chain.
func (l *line) examineCommit(ctx context.Context, host string, o *outcome) {
	msg := o.event.Commit
	did, err := syntax.ParseDID(msg.Repo)
	if err != nil {
		return // names no account, so none of ours
	}
	l.count(msg)
	o.did, o.inScope = did, l.inScope(msg)
	if !o.inScope && !l.repos.tracked(did) {
		o.later = true
		return
	}
	l.repos.track(did)
	l.verify(ctx, host, o)
}

// verifyLate makes up for a verification that was put off.
func (l *line) verifyLate(ctx context.Context, frame firehose.Frame, o *outcome) {
	o.later = false
	event, err := frame.Decode()
	if err != nil {
		o.err = err // cannot be: it has been decoded before
		return
	}
	o.event = event
	if event.Commit != nil {
		l.verify(ctx, frame.Host, o)
	} else if event.Sync != nil {
		l.verifySync(ctx, o)
	}
}

func (l *line) verify(ctx context.Context, host string, o *outcome) {
	var err error
	o.verified, err = l.Verifier.Commit(ctx, o.event.Commit, l.follows)
	o.settle(err)
	if err == nil {
		l.validate(host, o)
	}
}

// settle tells a refusal, which is the sender's, from a failure of ours.
func (o *outcome) settle(err error) {
	if refusal, ok := verify.IsRefusal(err); ok {
		o.refused = refusal
	} else {
		o.err = err
	}
}

func (l *line) follows(collection syntax.NSID) bool {
	_, ok := l.Catalog.Collection(collection)
	return ok
}

// count counts what the commit changes, followed or not.
func (l *line) count(msg *comatproto.SyncSubscribeRepos_Commit) {
	for _, op := range msg.Ops {
		if op != nil {
			collection, _, _ := strings.Cut(op.Path, "/")
			l.taken.count(collection)
		}
	}
}

func (l *line) inScope(msg *comatproto.SyncSubscribeRepos_Commit) bool {
	for _, op := range msg.Ops {
		if op == nil {
			continue
		}
		collection, _, ok := strings.Cut(op.Path, "/")
		if ok && l.follows(syntax.NSID(collection)) {
			return true
		}
	}
	return false
}

// validate turns the commit's ops into changes. A record that its lexicon refuses
// goes to the dead letters, and what it replaces goes from the index: the
// repository no longer holds that either.
func (l *line) validate(host string, o *outcome) {
	commit := o.verified.Commit
	o.changes = make([]store.Change, 0, len(commit.Ops))
	for _, op := range commit.Ops {
		change := store.Change{Action: op.Action, Key: op.Key, CID: op.CID, Rev: commit.Rev}
		if op.Action != record.Delete {
			checked, err := l.Catalog.Check(op.Key, op.CBOR)
			if err != nil {
				o.dead = append(o.dead, invalidRecord(host, commit, op, err))
				change.Action, change.CID = record.Delete, ""
			} else {
				change.JSON, change.CreatedAt = checked.JSON, checked.CreatedAt
				change.Filter, change.Refs, change.Links = checked.Filter, checked.Refs, checked.Links
			}
		}
		change.Prepare()
		o.changes = append(o.changes, change)
	}
}

// The stages at which a dead letter may leave the line.
const (
	stageFrame    = "frame"
	stageVerify   = "verify"
	stageValidate = "validate"
	stageStore    = "store"
)

func invalidRecord(host string, commit record.Commit, op record.Op, err error) store.DeadLetter {
	letter := store.DeadLetter{
		Host: host, Seq: commit.Seq, DID: commit.DID, Collection: op.Key.Collection, Rkey: op.Key.Rkey,
		Rev: commit.Rev, CID: op.CID, Stage: stageValidate, Class: "invalid", Reason: err.Error(), Raw: op.CBOR,
	}
	var invalid *catalog.Invalid
	if errors.As(err, &invalid) {
		letter.Path, letter.Reason = invalid.Path, invalid.Reason
		letter.Expected, letter.Received = invalid.Expected, invalid.Received
	}
	return letter
}
