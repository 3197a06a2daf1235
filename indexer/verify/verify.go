// Package verify lets through only commits whose signature, tree and ops hold,
// as the sync specification asks (https://atproto.com/specs/sync). It keeps no
// state of repositories, so commits can be verified in parallel; whether a commit
// continues its repository's chain is for the line to say. Stage 2 of the line.
package verify

import (
	"context"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Limits of the sync specification, and how far ahead of our clock a rev may lie.
const (
	MaxBlocks  = 2_000_000 // bytes of a commit's CAR
	MaxSync    = 10_000    // bytes of a #sync event's CAR
	MaxOps     = 200
	FutureSkew = 5 * time.Minute
)

// Reason classes a refusal, for dead letters and metrics.
type Reason string

// The reasons for which a commit is refused.
const (
	Malformed Reason = "malformed" // a field does not parse or contradicts the signed commit
	Limit     Reason = "limit"     // larger than the protocol allows
	Future    Reason = "future"    // rev lies in the future
	Blocks    Reason = "blocks"    // the CAR does not parse, or a block is missing or altered
	Identity  Reason = "identity"  // no signing key can be had for the DID
	Signature Reason = "signature" // the signature is not by the DID's key
	Tree      Reason = "tree"      // the ops do not lead from prevData to the tree
)

// Error is a refusal.
type Error struct {
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Err.Error() }

// Unwrap returns what lies behind the refusal.
func (e *Error) Unwrap() error { return e.Err }

func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// directory tells a DID's signing key; Purge makes the next look-up a fresh one.
type directory interface {
	LookupDID(context.Context, syntax.DID) (*identity.Identity, error)
	Purge(context.Context, syntax.AtIdentifier) error
}

// Verifier checks commits. It is safe for concurrent use.
type Verifier struct {
	keys    *keyring
	lenient bool
	now     func() time.Time
}

// Option changes how a verifier judges.
type Option func(*Verifier)

// Lenient takes commits of hosts that speak the protocol as it was before 2025: they
// name no prevData, and no prev with their ops. Of such a commit it is still known
// that the account signed the tree and that the tree shows every op, but not that
// the ops are all that has changed: a change that the host leaves out, or that was
// lost with an earlier commit, stays out of the index.
func Lenient(lenient bool) Option { return func(v *Verifier) { v.lenient = lenient } }

// New makes a verifier that learns signing keys from dir.
func New(dir directory, options ...Option) *Verifier {
	v := &Verifier{keys: newKeyring(dir), now: time.Now}
	for _, option := range options {
		option(v)
	}
	return v
}

// Verified is a commit that holds, and what its DID document says of the account.
type Verified struct {
	Commit record.Commit
	PDS    string        // the account's service endpoint; empty where the document names none
	Handle syntax.Handle // as declared, not verified; empty where none is
}

// Commit checks a #commit event: limits, agreement of the envelope with the signed
// commit, signature (with one refresh of the identity), blocks, and that undoing
// the ops on the tree gives prevData. Ops of the result are those on collections
// that follows accepts. Every failure that is not of ctx or of the network on the
// way to the identity is an [*Error].
func (v *Verifier) Commit(ctx context.Context, msg *comatproto.SyncSubscribeRepos_Commit, follows func(syntax.NSID) bool) (Verified, error) {
	commit, err := v.envelope(msg)
	if err != nil {
		return Verified{}, err
	}
	ops, err := parseOps(commit.DID, msg.Ops, v.lenient)
	if err != nil {
		return Verified{}, err
	}
	blocks, signed, err := open(msg)
	if err != nil {
		return Verified{}, err
	}
	commit.Data = syntax.CID(signed.data.String())
	account, err := v.keys.check(ctx, signed)
	if err != nil {
		return Verified{}, err
	}
	if err := v.checkChange(blocks, signed.data, ops, msg); err != nil {
		return Verified{}, err
	}
	commit.Ops, err = collect(blocks, ops, follows)
	if err != nil {
		return Verified{}, err
	}
	return Verified{Commit: commit, PDS: account.PDSEndpoint(), Handle: declaredHandle(account)}, nil
}

// checkChange checks that the ops lead from the tree before to the signed one. The
// tree before a repository's first commit is the empty one.
func (v *Verifier) checkChange(blocks blockMap, root cid.Cid, ops []op, msg *comatproto.SyncSubscribeRepos_Commit) error {
	tree, err := readTree(blocks, root)
	if err != nil {
		return err
	}
	prevData := (*cid.Cid)(msg.PrevData)
	if first := msg.Since == nil || *msg.Since == ""; first {
		if prevData != nil && *prevData != emptyTree {
			return refuse(Malformed, "prevData names a tree before the repository's first commit, which has no since")
		}
		prevData = &emptyTree
	}
	switch {
	case prevData != nil && invertible(ops):
		return checkTree(tree, ops, *prevData)
	case v.lenient:
		return checkForward(tree, ops)
	}
	return refuse(Malformed, "prevData is missing, and the commit is not the repository's first")
}

// Sync checks a #sync event and returns the commit that it announces, with its
// Rev, CID and Data alone.
func (v *Verifier) Sync(ctx context.Context, msg *comatproto.SyncSubscribeRepos_Sync) (record.Commit, error) {
	if len(msg.Blocks) > MaxSync {
		return record.Commit{}, refuse(Limit, "blocks have %d bytes, %d are allowed", len(msg.Blocks), MaxSync)
	}
	did, err := syntax.ParseDID(msg.Did)
	if err != nil {
		return record.Commit{}, refuse(Malformed, "did: %w", err)
	}
	blocks, root, err := readCAR(msg.Blocks)
	if err != nil {
		return record.Commit{}, err
	}
	signed, err := blocks.commit(root)
	if err != nil {
		return record.Commit{}, err
	}
	if signed.did != did || string(signed.rev) != msg.Rev {
		return record.Commit{}, refuse(Malformed, "event is of %s at %s, the signed commit of %s at %s", msg.Did, msg.Rev, signed.did, signed.rev)
	}
	if err := v.checkRev(signed.rev); err != nil {
		return record.Commit{}, err
	}
	if _, err := v.keys.check(ctx, signed); err != nil {
		return record.Commit{}, err
	}
	return record.Commit{Seq: msg.Seq, DID: did, Rev: signed.rev, CID: syntax.CID(root.String()), Data: syntax.CID(signed.data.String())}, nil
}

// Forget drops what is known of an account's keys, as after an #identity event.
func (v *Verifier) Forget(ctx context.Context, did syntax.DID) error {
	v.keys.refreshed.Remove(did)
	return v.keys.directory.Purge(ctx, did.AtIdentifier())
}

// envelope parses the event's own fields and holds them against the limits.
func (v *Verifier) envelope(msg *comatproto.SyncSubscribeRepos_Commit) (record.Commit, error) {
	if msg.TooBig || msg.Rebase {
		return record.Commit{}, refuse(Malformed, "tooBig or rebase is set: events of the old protocol carry no verifiable change")
	}
	if len(msg.Blocks) > MaxBlocks {
		return record.Commit{}, refuse(Limit, "blocks have %d bytes, %d are allowed", len(msg.Blocks), MaxBlocks)
	}
	if len(msg.Ops) > MaxOps {
		return record.Commit{}, refuse(Limit, "%d ops, %d are allowed", len(msg.Ops), MaxOps)
	}
	did, err := syntax.ParseDID(msg.Repo)
	if err != nil {
		return record.Commit{}, refuse(Malformed, "repo: %w", err)
	}
	rev, err := syntax.ParseTID(msg.Rev)
	if err != nil {
		return record.Commit{}, refuse(Malformed, "rev: %w", err)
	}
	if err := v.checkRev(rev); err != nil {
		return record.Commit{}, err
	}
	at, err := syntax.ParseDatetimeLenient(msg.Time)
	if err != nil {
		return record.Commit{}, refuse(Malformed, "time: %w", err)
	}
	commit := record.Commit{Seq: msg.Seq, DID: did, Rev: rev, CID: syntax.CID(msg.Commit.String()), Time: at.Time()}
	if msg.Since != nil && *msg.Since != "" {
		if commit.Since, err = syntax.ParseTID(*msg.Since); err != nil {
			return record.Commit{}, refuse(Malformed, "since: %w", err)
		}
		if commit.Since >= rev {
			return record.Commit{}, refuse(Malformed, "since %s is not before rev %s", commit.Since, rev)
		}
	}
	if msg.PrevData != nil {
		commit.PrevData = syntax.CID(msg.PrevData.String())
	}
	return commit, nil
}

// open reads the event's blocks and the signed commit among them.
func open(msg *comatproto.SyncSubscribeRepos_Commit) (blockMap, signedCommit, error) {
	blocks, root, err := readCAR(msg.Blocks)
	if err != nil {
		return nil, signedCommit{}, err
	}
	if root != cid.Cid(msg.Commit) {
		return nil, signedCommit{}, refuse(Malformed, "the CAR's root is %s, the event's commit %s", root, msg.Commit)
	}
	signed, err := blocks.commit(root)
	if err != nil {
		return nil, signedCommit{}, err
	}
	if string(signed.did) != msg.Repo || string(signed.rev) != msg.Rev {
		return nil, signedCommit{}, refuse(Malformed, "event is of %s at %s, the signed commit of %s at %s", msg.Repo, msg.Rev, signed.did, signed.rev)
	}
	return blocks, signed, nil
}
