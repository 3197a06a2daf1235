package resync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// The statuses of accounts that mean something here; any other says that the account
// is not active, and why.
const (
	statusActive   = "active"
	statusInactive = "inactive"  // nobody says why
	statusNotFound = "not found" // its own host does not know it, and has said so once
)

const maxStatus = 64 // bytes

// word is an answer on an account's status, and when it was asked for.
type word struct {
	status string
	asked  time.Time
}

// status asks a host for an account's status. A host that does not know the account
// fails with [NotFound].
func (c *client) status(ctx context.Context, base string, did syntax.DID) (string, error) {
	a, err := c.ask(ctx, base, "com.atproto.sync.getRepoStatus", "did", did)
	if err != nil {
		return "", err
	}
	defer a.close()
	var said struct {
		DID    syntax.DID
		Active *bool
		Status string
	}
	if err := json.NewDecoder(io.LimitReader(a, maxAnswer)).Decode(&said); err != nil {
		return "", a.failed(Server, fmt.Errorf("getRepoStatus: %w", err))
	}
	a.gate.answered()
	switch {
	case said.DID != did || said.Active == nil:
		return "", &Failure{Class: Server, Host: a.host, Err: errText("getRepoStatus: no answer on the account")}
	case *said.Active:
		return statusActive, nil
	case said.Status == "" || said.Status == statusActive || len(said.Status) > maxStatus:
		return statusInactive, nil
	}
	return said.Status, nil
}

// refresh looks up afresh where the account is. Only a host that was found so is
// believed in what it says of the account: it may have moved.
func (f *fetch) refresh(ctx context.Context) error {
	f.sure = false
	if err := f.cfg.Identities.Purge(ctx, f.did.AtIdentifier()); err != nil {
		return &Failure{Class: Identity, Host: hostOf(f.pds), Err: err}
	}
	account, err := f.cfg.Identities.LookupDID(ctx, f.did)
	if err == nil && account.PDSEndpoint() == "" {
		err = errText("its document names no host for the repository")
	}
	if err != nil {
		f.gone = f.tombstoned(err)
		return &Failure{Class: Identity, Host: hostOf(f.pds), Err: err}
	}
	f.pds, f.sure = account.PDSEndpoint(), true
	return nil
}

// tombstoned tells whether a look-up says that the account is deleted for good.
func (r *Resync) tombstoned(err error) bool {
	return r.cfg.Tombstoned != nil && errors.Is(err, r.cfg.Tombstoned)
}

// ask is what may be believed of the account's status: what its own host says. A host
// that does not know the account has to say so twice, in two attempts, before the
// account counts as deleted: it may have lost what it had. That an account is back
// is taken from its host only where no relay has it taken down or suspended.
func (f *fetch) ask(ctx context.Context) (word, error) {
	w := word{asked: time.Now()}
	status, err := f.client.status(ctx, f.pds, f.did)
	failure, failed := asFailure(err)
	switch {
	case failed && failure.Class == NotFound && f.row.Status == statusNotFound:
		w.status, err = store.StatusDeleted, nil
	case failed && failure.Class == NotFound:
		w.status, err = statusNotFound, nil
	case err != nil:
		return word{}, err
	case status == statusActive && !f.active():
		w.status, err = f.vetoed(ctx)
	default:
		w.status = status
	}
	return w, err
}

// vetoed is what a relay has an account as that is active at its own host: also
// relays take accounts down.
func (f *fetch) vetoed(ctx context.Context) (string, error) {
	for _, relay := range f.cfg.Relays {
		if hostOf(relay) == hostOf(f.pds) {
			continue
		}
		status, err := f.client.status(ctx, relay, f.did)
		if failure, ok := asFailure(err); err != nil && (!ok || failure.patient() || failure.Class == Network) {
			return "", err // it may have something to say
		}
		if class := inactiveClass(status); err == nil && (class == TakenDown || class == Suspended) {
			return status, nil
		}
	}
	return statusActive, nil
}

// active tells whether the account was, when its fetch began, for all that was known.
func (f *fetch) active() bool { return f.row.Sync == "" || f.row.Active }

// wake asks whether an account is back that was known not to be active.
func (f *fetch) wake(ctx context.Context) (word, error) {
	if err := f.refresh(ctx); err != nil {
		return word{}, err
	}
	return f.ask(ctx)
}

// heed is what the account's host says of the account where there is no repository to
// be had from it; no word where that is another matter, or not to be believed.
func (f *fetch) heed(ctx context.Context, refused error) (word, error) {
	failure, ok := asFailure(refused)
	switch {
	case f.gone:
		return word{status: store.StatusDeleted, asked: time.Now()}, nil
	case !ok || !f.sure || !failure.inactive() && failure.Class != NotFound:
		return word{}, nil
	}
	w, err := f.ask(ctx)
	said, ok := asFailure(err)
	switch {
	case ok && !said.patient() && failure.inactive():
		return word{status: statusOf(failure.Class), asked: time.Now()}, nil // it has no such method, perhaps
	case ok, w.status == statusActive:
		return word{}, nil
	}
	return w, err
}

// note has an account's status noted that differs from what is known, and makes a
// failure of it. Where the account is deleted it is emptied instead.
func (s *schedule) note(ctx context.Context, j *job, f *fetch, w word) (string, error) {
	if w.status != f.row.Status {
		said, err := s.line.Status(ctx, j.DID, w.status, w.asked)
		switch {
		case err != nil:
			return "", err
		case said && w.status == store.StatusDeleted:
			return s.bury(ctx, j)
		}
	}
	class := inactiveClass(w.status)
	if w.status == statusNotFound || w.status == store.StatusDeleted {
		class = NotFound
	}
	return "", &Failure{Class: class, Host: j.host, Err: fmt.Errorf("the account is %s", w.status)}
}

// bury removes all that a deleted account had.
func (s *schedule) bury(ctx context.Context, j *job) (string, error) {
	deleted, err := s.purge(ctx, s.line, j.DID)
	if err == nil {
		s.cfg.Logger.InfoContext(ctx, "purged a deleted account", "did", j.DID, "deleted", deleted)
	}
	return resultPurged, err
}

// inactiveClass is a status in the words of failures.
func inactiveClass(status string) Class {
	switch status {
	case "takendown":
		return TakenDown
	case "suspended":
		return Suspended
	}
	return Deactivated
}

func statusOf(class Class) string {
	switch class {
	case TakenDown:
		return "takendown"
	case Suspended:
		return "suspended"
	}
	return "deactivated"
}
