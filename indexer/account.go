package indexer

import (
	"context"
	"fmt"
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
	tx.say(o.did, status(msg.Active, msg.Status), s.frame.Host, msg.Seq, at)
	if h, begun := tx.held()[o.did]; begun {
		h.told = true
		tx.holds[o.did] = h
	}
	if tx.line.Resync == nil {
		return
	}
	switch {
	case state.gone() && was.Status != store.StatusDeleted:
		tx.bereave(o.did)
	case msg.Active && was.Status == store.StatusDeleted:
		tx.desynchronize(o.did, "the account is back after it was deleted", "")
		tx.want(o.did, "the account is back after it was deleted")
	case msg.Active && !was.Active && state.sync != store.Synchronized:
		tx.want(o.did, "the account is active again")
	case msg.Active && !was.Active: // what was asked for while it was away had been put off by a day
		tx.out.Hastened = append(tx.out.Hastened, o.did)
	}
}

// say notes a status, and what said so: the event at seq of a host's stream, or an
// answer that was asked for when the stream was there.
func (tx *transaction) say(repo did, status, host string, seq int64, at time.Time) {
	account := &tx.states[repo].account
	active := status == statusActive
	account.Said(host, seq, at)
	account.Active, account.Status = active, status
	tx.out.Repos = append(tx.out.Repos, store.RepoUpdate{DID: repo, Active: &active, Status: &status, Seq: &seq, Time: at})
}

// bereave has what a deleted account had removed.
func (tx *transaction) bereave(repo did) {
	tx.desynchronize(repo, "the account was deleted", "")
	tx.want(repo, "the account was deleted")
}

// Status implements [resync.Line].
func (l *line) Status(ctx context.Context, repo did, status string, asked time.Time) (said bool, err error) {
	err = l.inOrder(ctx, func(ctx context.Context) error {
		h, begun := l.holds.of[repo]
		if !begun {
			return errNotBegun
		}
		tx, err := l.open(ctx, repo)
		if err != nil {
			return err
		}
		host, seq := l.cursors.next("", 0)
		account := tx.states[repo].account
		if said = !h.told && !account.Overtaken(host, seq, asked); !said {
			return nil
		}
		tx.say(repo, status, host, seq, asked)
		if tx.states[repo].gone() && account.Status != store.StatusDeleted {
			tx.bereave(repo)
		}
		return l.write(ctx, tx)
	})
	if err != nil {
		return false, fmt.Errorf("noting that %s is %s: %w", repo, status, err)
	}
	l.Logger.InfoContext(ctx, "asked for an account's status", "did", repo, "status", status, "counts", said)
	return said, nil
}

// statusTime is when an #account event was made. A clock that runs ahead is not
// believed, or no other host could say anything until then.
func statusTime(at time.Time) time.Time {
	if now := time.Now(); at.After(now) {
		return now
	}
	return at
}

const statusActive = "active"

func status(active bool, said *string) string {
	switch {
	case active:
		return statusActive
	case said != nil && *said != "" && *said != statusActive:
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
