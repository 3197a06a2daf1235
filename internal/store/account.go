package store

import "time"

// StatusDeleted is the status of an account that is gone for good, with its
// repository. The others hide what is kept.
const StatusDeleted = "deleted"

// Account is the hosting status of a repository's account, and which #account event
// said so last.
type Account struct {
	Active bool   // false hides the records from every read
	Status string // as the last #account event had it, or "active"

	host string // where that event came from, and its place in that host's stream
	seq  int64
	time *time.Time // when it was made; nil if not known
}

// Overtaken tells whether an #account event says nothing new: it is a replay, or
// older than what another host has said since. Sequence numbers order the events of
// one host, unless it has begun a new sequence; times those of different hosts and
// sequences, where both are known.
func (a *Account) Overtaken(host string, seq int64, at time.Time) bool {
	if host == a.host && (seq > a.seq || a.time == nil || at.IsZero()) {
		return seq <= a.seq
	}
	return a.time != nil && !at.IsZero() && !at.After(*a.time)
}

// Said notes the event by which later ones are judged.
func (a *Account) Said(host string, seq int64, at time.Time) {
	a.host, a.seq, a.time = host, seq, nil
	if !at.IsZero() {
		a.time = &at
	}
}
