package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// The log of events is written in the transaction of what it tells of, and ordered
// by the versions of its changes, which become visible in their order.

// Letters for what happened.
const (
	letterCreate   = 'c'
	letterUpdate   = 'u'
	letterDelete   = 'd'
	letterInactive = 'a' // an account that is not active, or not any more
	letterActive   = 'A'
)

// loggedEvent is an event as a batch has it.
type loggedEvent struct {
	version int64
	letter  byte
	key     record.Key // of an account: its DID alone
	detail  string     // CID; of an account: its status
	targets []int64
}

// mostTargets bounds what one event says of a record's references: those beyond are
// not told of. It is far above what annotation tools write.
const mostTargets = 20_000

// TargetHash stands for the target of a reference in the index of references, and in
// events, where whoever follows those of a target finds them by it. It cannot be made
// to collide at will.
func TargetHash(target string) int64 {
	sum := sha256.Sum256([]byte(target))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// WithoutEvents makes the writer one that keeps no log of events, and drops what
// there is of it when it takes the lock.
func (w *Writer) WithoutEvents() *Writer {
	w.silent = true
	return w
}

// queueRecording starts or ends the log: what was changed while there was none is
// before its beginning.
func (w *Writer) queueRecording(batch *pgx.Batch) {
	if w.silent {
		batch.Queue("DELETE FROM events")
		batch.Queue("UPDATE event_log SET recording = false WHERE recording")
		return
	}
	batch.Queue("UPDATE event_log SET recording = true, after = (SELECT version FROM clock) WHERE NOT recording")
}

// log notes the event of a change that takes effect; old is nil if there was no such record.
func (e *effect) log(letter byte, c *keyChange, version int64, old *stored) {
	if e.silent {
		return
	}
	event := loggedEvent{version: version, letter: letter, key: c.Key}
	if letter != letterDelete {
		event.detail, event.targets = string(c.CID), c.prepared.hashes
	}
	if old != nil {
		event.targets = union(event.targets, old.targets)
	}
	event.targets = event.targets[:min(len(event.targets), mostTargets)]
	e.events = append(e.events, event)
}

// union is the hashes that are in either list, in their order.
func union(a, b []int64) []int64 {
	both := slices.Concat(a, b)
	slices.Sort(both)
	return slices.Compact(both)
}

// logAccount notes the event of an account whose status is another now.
func (e *effect) logAccount(r *Repo, version int64) {
	if e.silent {
		return
	}
	letter := byte(letterInactive)
	if r.Active {
		letter = letterActive
	}
	e.events = append(e.events, loggedEvent{version: version, letter: letter, key: record.Key{DID: r.DID}, detail: r.Status})
}

// writeEvents adds the log's row.
func (e *effect) writeEvents(batch *pgx.Batch) {
	if len(e.events) == 0 {
		return
	}
	slices.SortFunc(e.events, func(a, b loggedEvent) int { return cmp.Compare(a.version, b.version) })
	batch.Queue("INSERT INTO events (version, changes, content) VALUES ($1, $2, $3)",
		e.events[len(e.events)-1].version, len(e.events), encodeEvents(e.events))
}
