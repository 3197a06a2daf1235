package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// DeadLetter is an event or a record that could not be indexed or projected. What
// it names may be malformed, or missing, since that may be what was wrong.
type DeadLetter struct {
	ID         int64     // set by the store
	CreatedAt  time.Time // set by the store
	Host       string    // whose stream it came in, and where in it
	Seq        int64
	DID        syntax.DID
	Collection syntax.NSID
	Rkey       syntax.RecordKey
	Rev        syntax.TID
	CID        syntax.CID
	Stage      string // where it was given up: frame, verify, validate, store, or a projection
	Class      string // the kind of failure
	Path       string // where in the value
	Reason     string
	Expected   string
	Received   string
	Raw        []byte // the bytes: of the record, or of the whole event

	// How it fared when it was put through again, see [DeadLetters.Request].
	Requested bool   // and has not come to an end yet
	Attempts  int    // that failed
	Outcome   string // of the last one, or what is waited for
}

// Texts of dead letters are cut to this many bytes.
const maxLetterText = 8 << 10

// text makes anything storable: valid UTF-8, without U+0000, and not too long.
func text[T ~string](s T) string {
	t := string(s)
	if len(t) > maxLetterText {
		t = t[:maxLetterText]
	}
	return withoutNUL(strings.ToValidUTF8(t, "\uFFFD"))
}

// withoutNUL puts U+FFFD in the place of U+0000, which PostgreSQL's text refuses.
func withoutNUL(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// identity is the same for the same failure met again: of a record at a stage in one
// of its versions, or else of an event at its place in the stream.
func (d *DeadLetter) identity() []byte {
	sum := sha256.New()
	write := func(parts ...string) {
		for _, part := range parts {
			_ = binary.Write(sum, binary.BigEndian, uint64(len(part)))
			sum.Write([]byte(part))
		}
	}
	write(d.Stage, string(d.DID), string(d.Collection), string(d.Rkey))
	switch {
	case d.Rkey != "":
		write(string(d.Rev), string(d.CID))
	case d.Seq != 0:
		write(d.Host, fmt.Sprint(d.Seq))
	default: // a frame that could not be read has no number
		write(d.Host, string(d.Raw))
	}
	return sum.Sum(nil)
}

// insertLetter adds one letter. One that is there already keeps its number and
// tells the newest reason; if its projection was being tried again, that has failed.
const insertLetter = `
	INSERT INTO dead_letters (host, seq, did, collection, rkey, rev, cid, stage, class, path, reason, expected, received, raw, identity)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
	ON CONFLICT (identity) DO UPDATE SET class = excluded.class, path = excluded.path, reason = excluded.reason,
		expected = excluded.expected, received = excluded.received, raw = excluded.raw,
		requested_at = CASE WHEN dead_letters.outbox_id IS NULL THEN dead_letters.requested_at END,
		started_at = CASE WHEN dead_letters.outbox_id IS NULL THEN dead_letters.started_at END, outbox_id = NULL,
		attempts = dead_letters.attempts + (dead_letters.outbox_id IS NOT NULL)::int,
		outcome = CASE WHEN dead_letters.outbox_id IS NULL THEN dead_letters.outcome ELSE 'failed again' END`

func (d *DeadLetter) parameters() []any {
	return []any{
		text(d.Host), d.Seq, text(d.DID), text(d.Collection), text(d.Rkey), text(d.Rev), text(d.CID), text(d.Stage), text(d.Class),
		text(d.Path), text(d.Reason), text(d.Expected), text(d.Received), d.Raw, d.identity(),
	}
}

// writeLetters removes what the batch's changes have overtaken, and what stood for
// a repository that has been fetched whole since: the fetch has met again, in its
// own rev, what is still wrong. Then it adds what the
// batch itself could not index: an invalid record's letter outlives the delete of
// the record that it took the place of.
func (e *effect) writeLetters(batch *pgx.Batch) {
	if len(e.settled) > 0 {
		names := make([]string, len(e.settled))
		for i, key := range e.settled {
			names[i] = letterName(string(key.DID), string(key.Collection), string(key.Rkey))
		}
		batch.Queue(`DELETE FROM dead_letters d USING unnest($1::text[], $2::text[]) AS k (name, rev)
			WHERE hashtextextended(d.did || '/' || d.collection || '/' || d.rkey, 0) = hashtextextended(k.name, 0)
				AND d.did || '/' || d.collection || '/' || d.rkey = k.name AND d.rev < k.rev`, names, e.revs)
	}
	if len(e.replays) > 0 {
		batch.Queue("DELETE FROM dead_letters WHERE id = ANY ($1)", e.replays)
	}
	if len(e.whole.dids) > 0 {
		batch.Queue(`DELETE FROM dead_letters d USING unnest($1::text[], $2::text[]) AS f (did, rev)
			WHERE hashtextextended(d.did, 0) = hashtextextended(f.did, 0) AND d.did = f.did AND d.rev < f.rev
				AND d.stage NOT LIKE 'project:%'`, e.whole.dids, e.whole.revs)
	}
	for i := range e.batch.DeadLetters {
		batch.Queue(insertLetter, e.batch.DeadLetters[i].parameters()...)
	}
}

func letterName(did, collection, rkey string) string { return did + "/" + collection + "/" + rkey }

// DeadLetters reads and settles what could not be indexed.
type DeadLetters struct {
	pool database
}

// NewDeadLetters takes a pool, or a transaction, that may write, if anything but List
// and Get is called.
func NewDeadLetters(pool database) *DeadLetters { return &DeadLetters{pool: pool} }

// Add records failures; one that is there already is not doubled.
func (l *DeadLetters) Add(ctx context.Context, letters []DeadLetter) error {
	batch := &pgx.Batch{}
	for i := range letters {
		batch.Queue(insertLetter, letters[i].parameters()...)
	}
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("add %d dead letters: %w", len(letters), ended(ctx, err))
	}
	return nil
}
