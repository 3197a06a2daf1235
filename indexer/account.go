package indexer

import (
	"time"

	"github.com/layers-pub/layers-appview/internal/store"
)

// account notes an account's hosting status, which counts at once: also while its
// repository is fetched, and whatever its chain is like.
func (tx *transaction) account(s *slot) {
	o, state := &s.outcome, tx.states[s.outcome.did]
	if !state.known {
		return
	}
	msg, at := o.event.Account, statusTime(o.event.Time())
	if state.account.Overtaken(s.frame.Host, msg.Seq, at) {
		tx.tally.replayed++
		return
	}
	was := state.account
	state.account.Said(s.frame.Host, msg.Seq, at)
	state.account.Active, state.account.Status = msg.Active, status(msg.Active, msg.Status)
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{
		DID: o.did, Active: &msg.Active, Status: &state.account.Status, Seq: &msg.Seq, Time: at,
	})
	if tx.line.Resync == nil {
		return
	}
	switch {
	case state.gone() && was.Status != store.StatusDeleted:
		tx.desynchronize(o.did, "the account was deleted", "")
		tx.want(o.did, "the account was deleted")
	case msg.Active && was.Status == store.StatusDeleted:
		tx.desynchronize(o.did, "the account is back after it was deleted", "")
		tx.want(o.did, "the account is back after it was deleted")
	case msg.Active && !was.Active && state.sync != store.Synchronized:
		tx.want(o.did, "the account is active again")
	}
}

// statusTime is when an #account event was made. A clock that runs ahead is not
// believed, or no other host could say anything until then.
func statusTime(at time.Time) time.Time {
	if now := time.Now(); at.After(now) {
		return now
	}
	return at
}

func status(active bool, said *string) string {
	switch {
	case active:
		return "active"
	case said != nil && *said != "":
		return *said
	}
	return "inactive"
}

// gone tells whether the account is deleted: then nothing of it is indexed, since
// what the stream still brings is from before.
func (r *repoState) gone() bool {
	return r.known && !r.account.Active && r.account.Status == store.StatusDeleted
}

// want has a repository fetched as soon as can be.
func (tx *transaction) want(repo did, reason string) {
	tx.out.Wanted = append(tx.out.Wanted, store.Wanted{DID: repo, Reason: reason})
}
