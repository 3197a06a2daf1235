package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Routes say which projections follow each collection. A collection without any
// is kept in PostgreSQL alone.
type Routes map[syntax.NSID][]record.Target

// Writer is the one that changes records and repositories. It writes only while
// it holds the lock that [Writer.Lock] waits for.
type Writer struct {
	pool   *pgxpool.Pool // for reading
	routes Routes
	logger *slog.Logger
	silent bool // keeps no log of events

	mu      sync.Mutex
	session *session // nil without the lock

	doubts atomic.Int64 // until when creates are looked up before, in nanoseconds
}

// NewWriter prepares a writer; it does not connect.
func NewWriter(pool *pgxpool.Pool, routes Routes, logger *slog.Logger) *Writer {
	return &Writer{pool: pool, routes: routes, logger: logger.With("component", "store writer")}
}

// Batch is what one transaction applies, in the order of the stream.
type Batch struct {
	// Host and Cursor say how far that host's stream has been applied with this
	// batch; the cursor is left alone if Host is empty.
	Host   string
	Cursor int64

	Repos       []RepoUpdate
	Changes     []Change
	DeadLetters []DeadLetter

	// Held are events of repositories that are being fetched. Those held for the
	// repositories in DropHeld before this batch go.
	Held     []Held
	DropHeld []syntax.DID
	// Wanted are repositories that are to be fetched, see [Resyncs.Add].
	Wanted []Wanted
	// Hastened are repositories whose fetch is due now if one has been put off. None is
	// asked for that was not.
	Hastened []syntax.DID
	// Overrun says that events may have been missed: every repository that was
	// followed before is to be fetched, and every search for repositories starts anew.
	Overrun bool
	// Purge removes what is left of repositories of deleted accounts whose records
	// are gone. A tombstone stays, which an older #account event does not undo.
	Purge []syntax.DID
}

// Empty tells whether the batch does nothing but move the cursor.
func (b *Batch) Empty() bool {
	return len(b.Repos) == 0 && len(b.Changes) == 0 && len(b.DeadLetters) == 0 &&
		len(b.Held) == 0 && len(b.DropHeld) == 0 && len(b.Wanted) == 0 && len(b.Hastened) == 0 && !b.Overrun && len(b.Purge) == 0
}

// Change is a change to one record. One that a newer change of the record has
// overtaken, or that has been applied before, has no effect; what is compared
// depends on where it comes from:
//
//   - A commit's is skipped if its rev is not newer than that of the stored record
//     or, where there is none, older than that of the repository: a replayed
//     create does not bring back what was deleted after it.
//   - With Resync, it comes from the repository fetched whole, and is skipped only
//     if the stored record is the same already.
//   - With DeadLetter, it puts that letter through again. It is skipped if the
//     letter is gone, as it is once a newer change of the record was applied, or if
//     the repository is not synchronized, and removes the letter otherwise.
type Change struct {
	Action     record.Action // Create and Update mean the same: the record is now this. Creates of what is there cost more
	Key        record.Key
	Rev        syntax.TID // of the commit
	Resync     bool
	DeadLetter int64 // ID; 0 for none

	// The rest is empty for a delete.
	CID       syntax.CID
	JSON      json.RawMessage // the value, stored verbatim
	CreatedAt time.Time       // zero if the record does not say
	// Filter holds by property what list queries filter on: a term as
	// [record.FilterTerm] makes it, or a []string of such.
	Filter map[string]any
	Refs   []record.Ref
	Links  []record.Link

	prepared *prepared
}

const (
	maxCollection = 317
	maxDID        = 1024 // real ones have at most some 260: did:web with a host name
	maxRkey       = 512
)

// check refuses names that do not fit into an index.
func (c *Change) check() error {
	for _, part := range []TooLong{
		{"collection", len(c.Key.Collection), maxCollection},
		{"DID", len(c.Key.DID), maxDID},
		{"record key", len(c.Key.Rkey), maxRkey},
	} {
		if part.Bytes > part.Most {
			return fmt.Errorf("change of %.100s...: %w", c.Key, &part)
		}
	}
	return nil
}

// Apply writes a batch in one transaction, which has reached the disk when Apply
// returns. With it come the references of its records, the outbox rows for the
// projections that follow them, those of records that referred to one which has
// now arrived, those of a repository that became active or inactive, and the
// cursor. The list of repositories to fetch is kept in step, see [Resyncs]. An
// error other than [ErrLockLost] and [ErrRejected] may pass: try again.
func (w *Writer) Apply(ctx context.Context, b Batch) error {
	w.mu.Lock()
	s := w.session
	w.mu.Unlock()
	if s == nil {
		return ErrLockLost
	}
	changes, err := coalesce(b.Changes)
	if err != nil {
		return err
	}
	err = w.applyTo(ctx, s, &b, changes, w.trusts())
	if isTaken(err) {
		w.logger.InfoContext(ctx, "a commit creates what is there, applying the batch once more", "changes", len(changes), "error", err)
		w.doubt()
		err = w.applyTo(ctx, s, &b, changes, false)
	}
	if err != nil {
		return fmt.Errorf("apply a batch of %d changes: %w", len(b.Changes), rejected(ended(ctx, err)))
	}
	return nil
}

// applyTo does it once. With trust, what a commit creates is taken not to be there, and
// not looked for: a verified commit proves that it was not in the repository. Where it
// is all the same, its key is taken.
func (w *Writer) applyTo(ctx context.Context, s *session, b *Batch, changes []keyChange, trust bool) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		present, err := readPresent(ctx, tx, b, changes, trust)
		if err != nil {
			return err
		}
		if present.clock != s.clock {
			return errSucceeded
		}
		return w.decide(b, changes, present).write(ctx, tx)
	})
}

// doubtFor bounds what batches cost that are applied twice, as whoever publishes
// unproven commits could have them all.
const doubtFor = time.Minute

func (w *Writer) doubt() { w.doubts.Store(time.Now().Add(doubtFor).UnixNano()) }

func (w *Writer) trusts() bool { return time.Now().UnixNano() > w.doubts.Load() }

// isTaken tells whether a record was there already.
func isTaken(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && refusal.Code == codeUniqueViolation && strings.HasPrefix(refusal.TableName, "records_")
}

// Cursor is how far a host's stream has been applied; ok is false if it never was.
func (w *Writer) Cursor(ctx context.Context, host string) (seq int64, ok bool, err error) {
	err = w.pool.QueryRow(ctx, "SELECT seq FROM cursor WHERE host = $1", host).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the cursor of %s: %w", host, ended(ctx, err))
	}
	return seq, true, nil
}
