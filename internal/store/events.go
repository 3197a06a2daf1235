package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Event is a change of the index: of a record or, where it has no collection, of an account.
type Event struct {
	Cursor  int64 // its version: unique, and growing from one to the next
	Time    time.Time
	Action  record.Action // of a record
	Key     record.Key    // of an account: its DID alone
	CID     syntax.CID    // of a record that is there
	Active  bool          // of an account
	Status  string        // of an account
	Targets []int64       // hashes of what the record refers to, or referred to before
}

// OfAccount tells an event of an account from one of a record.
func (e *Event) OfAccount() bool { return e.Key.Collection == "" }

// EventPage is a part of the log.
type EventPage struct {
	Events []Event // in their order; without those of records of inactive repositories
	// Next is where the log goes on: behind the last event, or at the present end.
	Next int64
	More bool // there is more at present
	// Since is where the log begins for the cursor that was asked about. Whoever has come
	// less far has missed events, or has seen some that were lost in a recovery.
	Since int64
	// Head is the version of the last change of all. A cursor beyond it is from elsewhere.
	Head int64
}

// Bounds of a page of the log. A row, and so a transaction of the writer, is read whole.
const (
	eventRows    = 100
	eventsAtOnce = 2000
)

// ErrNoEvents says that the writer keeps no log of events.
var ErrNoEvents = errors.New("no log of events is kept")

// Events reads the log behind a cursor. The page is one of the moment: what has
// been committed before is in it or after it.
func (r *Reader) Events(ctx context.Context, after int64) (EventPage, error) {
	var page EventPage
	var recording bool
	var rows []eventRow
	// The end of the log and its rows are read by one statement, which sees one state.
	found, err := r.pool.Query(ctx, `
		SELECT c.version, greatest(l.after, (SELECT max(resumed) FROM recoveries WHERE reached < $1 AND $1 < resumed)), l.recording, e.version, e.at, e.content
		FROM clock c CROSS JOIN event_log l LEFT JOIN (
			SELECT * FROM (SELECT *, sum(changes) OVER (ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
				FROM (SELECT * FROM events WHERE version > $1 ORDER BY version LIMIT $2) first) counted
			WHERE before IS NULL OR before < $3) e ON true ORDER BY e.version`, planned, after, eventRows, eventsAtOnce)
	if err == nil {
		var row eventRow
		_, err = pgx.ForEachRow(found, row.into(&page.Head, &page.Since, &recording), func() error {
			if row.version != nil {
				rows = append(rows, row)
			}
			row = eventRow{}
			return nil
		})
	}
	switch {
	case err != nil:
		return page, fmt.Errorf("read the log of events after %d: %w", after, ended(ctx, err))
	case !recording:
		return page, fmt.Errorf("read the log of events: %w", ErrNoEvents)
	}
	changes := 0
	for i := range rows {
		logged, err := decodeEvents(rows[i].content)
		if err != nil {
			return page, fmt.Errorf("read the events of version %d: %w", *rows[i].version, err)
		}
		changes += len(logged)
		for j := range logged {
			if logged[j].version > after {
				page.Events = append(page.Events, logged[j].event(*rows[i].at))
			}
		}
	}
	page.Next, page.More = page.Head, len(rows) == eventRows || changes >= eventsAtOnce
	if page.More {
		page.Next = *rows[len(rows)-1].version
	}
	return page, r.leaveOutInactive(ctx, &page)
}

// leaveOutInactive drops the events of records of repositories that are not active now.
func (r *Reader) leaveOutInactive(ctx context.Context, page *EventPage) error {
	if len(page.Events) == 0 {
		return nil
	}
	seen := map[syntax.DID]bool{}
	var dids []syntax.DID
	for i := range page.Events {
		if did := page.Events[i].Key.DID; !seen[did] {
			seen[did] = true
			dids = append(dids, did)
		}
	}
	inactive, err := r.Inactive(ctx, dids)
	if err != nil {
		return err
	}
	page.Events = slices.DeleteFunc(page.Events, func(e Event) bool { return !e.OfAccount() && inactive[e.Key.DID] })
	return nil
}

// eventRow is a row of events; version is nil where there is none.
type eventRow struct {
	version *int64
	at      *time.Time
	content []byte
}

// into are the destinations of the row's columns, behind those of others.
func (e *eventRow) into(before ...any) []any {
	return append(before, &e.version, &e.at, &e.content)
}

// event is the event as readers have it.
func (l *loggedEvent) event(at time.Time) Event {
	e := Event{Cursor: l.version, Time: at, Key: l.key, Targets: l.targets}
	switch l.letter {
	case letterCreate:
		e.Action, e.CID = record.Create, syntax.CID(l.detail)
	case letterUpdate:
		e.Action, e.CID = record.Update, syntax.CID(l.detail)
	case letterDelete:
		e.Action = record.Delete
	default:
		e.Active, e.Status = l.letter == letterActive, l.detail
	}
	return e
}
