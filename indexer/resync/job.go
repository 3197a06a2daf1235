package resync

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

const (
	longestWait  = time.Hour
	leastWait    = time.Second
	inactiveWait = 24 * time.Hour // for a host's word that an account is not active; the stream says earlier when it is
	lostWait     = 6 * time.Hour  // at first, for a repository that its own host does not know; doubles up to lostMost
	lostMost     = 48 * time.Hour
)

// do takes a repository that is due the whole way, and says in the queue what became
// of it.
func (s *schedule) do(ctx context.Context, j job) {
	began := time.Now()
	log := s.cfg.Logger.With("did", j.DID, "host", j.host, "reason", j.Reason)
	outcome, err := s.attempt(ctx, &j)
	if ctx.Err() != nil {
		return // the line ends; the next one begins such fetches anew
	}
	if err == nil {
		done.WithLabelValues(outcome).Inc()
		return
	}
	outcome, until := s.judge(&j, err)
	done.WithLabelValues(outcome).Inc()
	host := j.host
	if failure, ok := asFailure(err); ok {
		host = failure.Host
	}
	attrs := []any{"result", outcome, "attempts", j.Attempts + 1, "until", until.UTC().Format(time.RFC3339), "took", time.Since(began).Round(time.Millisecond), "error", err}
	put := s.cfg.Queue.Postpone
	if outcome == resultDeferred || outcome == resultInactive {
		put = s.cfg.Queue.Defer
		log.DebugContext(ctx, "repository is fetched later", attrs...)
	} else {
		log.WarnContext(ctx, "fetching a repository failed, will try again", attrs...)
	}
	if err := put(ctx, j.DID, until, host, err.Error()); err != nil && ctx.Err() == nil {
		log.ErrorContext(ctx, "putting a repository off failed", "error", err)
	}
}

// attempt returns the result of what ended well.
func (s *schedule) attempt(ctx context.Context, j *job) (string, error) {
	known := j.Repo.Sync != ""
	switch gone := s.tombstoned(j.err); {
	case gone && !known:
		return resultDropped, s.cfg.Queue.Remove(ctx, j.DID)
	case j.err != nil && !gone:
		return "", &Failure{Class: Identity, Host: j.host, Err: j.err}
	}
	if j.Candidate && !known {
		wanted, err := s.holdsWanted(ctx, j)
		if err != nil {
			return "", err
		}
		if !wanted {
			return resultDropped, s.cfg.Queue.Remove(ctx, j.DID)
		}
	}
	if err := s.reachable(j); err != nil {
		return "", err
	}
	row, err := s.line.Begin(ctx, j.DID)
	if err != nil {
		return "", err
	}
	outcome, err := s.resync(ctx, j, row)
	if err != nil && !errors.Is(err, ErrDesynchronized) {
		if abandoned := s.line.Abandon(ctx, j.DID, err.Error()); abandoned != nil {
			return "", errors.Join(err, abandoned)
		}
	}
	return outcome, err
}

// resync fetches, or empties, a repository whose events are being held back.
func (s *schedule) resync(ctx context.Context, j *job, row store.Repo) (string, error) {
	f := &fetch{Resync: s.Resync, line: s.line, did: j.DID, row: row, pds: j.pds}
	switch {
	case row.Status == store.StatusDeleted:
		return s.bury(ctx, j)
	case j.pds == "":
		err := f.refresh(ctx)
		if f.gone {
			return s.note(ctx, j, f, word{store.StatusDeleted, time.Now()})
		}
		if err == nil {
			err = &Failure{Class: Identity, Host: j.host, Err: errText("the account's host was not known yet")}
		}
		return "", err
	case !f.active():
		w, err := f.wake(ctx)
		if err != nil {
			return "", err
		}
		if w.status != statusActive {
			return s.note(ctx, j, f, w)
		}
		f.back = w
	}
	return s.whole(ctx, j, f)
}

// whole fetches a repository and ends the fetch.
func (s *schedule) whole(ctx context.Context, j *job, f *fetch) (string, error) {
	began := time.Now()
	res, err := f.run(ctx)
	if err != nil {
		w, failed := f.heed(ctx, err)
		if failed != nil {
			return "", failed
		}
		if w.status != "" {
			return s.note(ctx, j, f, w)
		}
		return "", err
	}
	if f.back.status != "" { // if the stream has said something meanwhile, that counts
		if _, err := s.line.Status(ctx, j.DID, f.back.status, f.back.asked); err != nil {
			return "", err
		}
	}
	if err := s.line.Finish(ctx, j.DID, res.to); err != nil {
		return "", err
	}
	s.cfg.Logger.InfoContext(ctx, "fetched a repository whole", "did", j.DID, "reason", j.Reason, "from", res.host, "rev", res.to.Rev,
		"bytes", res.bytes, "created", res.counts.created, "updated", res.counts.updated, "deleted", res.counts.deleted,
		"unchanged", res.counts.unchanged, "invalid", res.counts.invalid, "took", time.Since(began).Round(time.Millisecond))
	return resultSynchronized, nil
}

// holdsWanted asks the account's host whether there is anything of interest.
func (s *schedule) holdsWanted(ctx context.Context, j *job) (bool, error) {
	found, err := s.client.collections(ctx, j.pds, j.DID)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(found, func(c syntax.NSID) bool { return s.scope.contains(string(c) + "/") }), nil
}

// reachable spares the line a fetch that would ask nobody: every host is to be left
// alone for now.
func (s *schedule) reachable(j *job) error {
	if j.pds == "" {
		return nil
	}
	f := &fetch{Resync: s.Resync, did: j.DID, pds: j.pds}
	var last error
	for _, base := range f.sources() {
		gate := s.client.gates.at(hostOf(base))
		last = gate.check()
		gate.done()
		if last == nil {
			return nil
		}
	}
	return last
}

// judge says what an error is, and when to try again: in order that the repositories
// of a host that was down do not all come at once, at a random time (full jitter).
func (s *schedule) judge(j *job, err error) (outcome string, until time.Time) {
	now := time.Now()
	wait, least := doubled(s.cfg.FirstWait, longestWait, j.Attempts), min(leastWait, s.cfg.FirstWait)
	failure, ok := asFailure(err)
	switch {
	case errors.Is(err, ErrDesynchronized):
		return resultAgain, now.Add(least + rand.N(wait))
	case !ok:
		return resultFailed, now.Add(least + rand.N(wait))
	case failure.patient():
		// The gate keeps the rate when it opens, so they need little spread.
		return resultDeferred, failure.Until.Add(rand.N(max(least, failure.Until.Sub(now)/4)))
	case failure.inactive():
		return resultInactive, now.Add(inactiveWait/2 + rand.N(inactiveWait))
	case failure.Class == NotFound:
		wait = doubled(lostWait, lostMost, j.Attempts)
		return resultFailed, now.Add(wait/2 + rand.N(wait))
	}
	return resultFailed, now.Add(least + rand.N(wait))
}

// doubled is a wait after so many failures.
func doubled(first, most time.Duration, attempts int) time.Duration {
	for ; attempts > 0 && first < most; attempts-- {
		first *= 2
	}
	return min(first, most)
}
