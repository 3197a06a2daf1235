package store

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Held is an event of a repository that is being fetched, as it came.
type Held struct {
	ID    int64 // set by the store; grows in the order of the stream
	DID   syntax.DID
	Host  string
	Seq   int64
	Rev   syntax.TID // of the commit, if it holds
	Frame []byte
}

// HeldEvents returns the events that are held for a repository behind a given ID,
// 0 for all, in the order in which they came.
func (w *Writer) HeldEvents(ctx context.Context, did syntax.DID, after int64) ([]Held, error) {
	events, err := collect(ctx, w.pool, pgx.RowToStructByPos[Held],
		"SELECT id, did, host, seq, rev, frame FROM held_events WHERE did = $1 AND id > $2 ORDER BY id", planned, did, after)
	if err != nil {
		return nil, fmt.Errorf("read the events held for %s: %w", did, err)
	}
	return events, nil
}

// HeldRevs returns the highest rev of the events held for each repository.
func (w *Writer) HeldRevs(ctx context.Context) (map[syntax.DID]syntax.TID, error) {
	revs := map[syntax.DID]syntax.TID{}
	rows, err := w.pool.Query(ctx, "SELECT did, max(rev) FROM held_events GROUP BY did")
	if err == nil {
		var did syntax.DID
		var rev syntax.TID
		_, err = pgx.ForEachRow(rows, []any{&did, &rev}, func() error {
			revs[did] = rev
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the revs of held events: %w", ended(ctx, err))
	}
	return revs, nil
}

// writeHeld drops events; new ones come by COPY, see [copyHeld].
func (e *effect) writeHeld(batch *pgx.Batch) {
	if drop := e.batch.DropHeld; len(drop) > 0 {
		batch.Queue("DELETE FROM held_events WHERE did = ANY ($1::text[])", drop)
	}
}

func copyHeld(ctx context.Context, tx pgx.Tx, events []Held) error {
	columns := []string{"did", "host", "seq", "rev", "frame"}
	return copyTo(ctx, tx, "held_events", columns, len(events), func(i int, values []any) []any {
		h := &events[i]
		return append(values, string(h.DID), h.Host, h.Seq, string(h.Rev), h.Frame)
	})
}

// writePurges removes what is left of deleted accounts but for the tombstone in
// repos. The records are gone already.
func (e *effect) writePurges(batch *pgx.Batch) {
	dids := e.batch.Purge
	if len(dids) == 0 {
		return
	}
	batch.Queue("DELETE FROM held_events WHERE did = ANY ($1::text[])", dids)
	batch.Queue("DELETE FROM resyncs WHERE did = ANY ($1::text[])", dids)
	batch.Queue(`DELETE FROM dead_letters d USING unnest($1::text[]) AS gone (did)
		WHERE hashtextextended(d.did, 0) = hashtextextended(gone.did, 0) AND d.did = gone.did`, dids)
	// What was deleted before its account was. The others' rows go with the outbox rows
	// of their removal, see [dropDeleted].
	for _, table := range []string{"annotation_layers", "search_documents"} {
		batch.Queue(`
			WITH RECURSIVE used (collection) AS (
				SELECT min(collection) FROM `+table+`
				UNION ALL SELECT (SELECT min(l.collection) FROM `+table+` l WHERE l.collection > used.collection)
				FROM used WHERE used.collection IS NOT NULL)
			DELETE FROM `+table+` l USING used, unnest($1::text[]) AS gone (did)
			WHERE l.collection = used.collection AND l.did = gone.did AND l.deleted`, dids)
	}
	batch.Queue("DELETE FROM relation_records WHERE did = ANY ($1::text[]) AND deleted", dids) // likewise
}

// purge leaves of a repository what keeps an old event from bringing it back.
func (r *Repo) purge() {
	tombstone := newRepo(r.DID)
	tombstone.Account = r.Account
	tombstone.Active, tombstone.Status = false, StatusDeleted
	tombstone.Sync = Synchronized // the index has all of it: nothing
	*r = tombstone
}

// Stored names a record of a repository, and which version of it is stored.
type Stored struct {
	Rkey syntax.RecordKey
	CID  syntax.CID
}

// RepoCollections returns the collections in which a repository has records, in
// order; also of an inactive one.
func (w *Writer) RepoCollections(ctx context.Context, did syntax.DID) ([]syntax.NSID, error) {
	found, err := collect(ctx, w.pool, pgx.RowTo[syntax.NSID], `
		SELECT p.collection FROM partitions p CROSS JOIN LATERAL (
			SELECT FROM records r WHERE r.collection = p.collection AND r.did = $1 LIMIT 1) present
		UNION SELECT collection FROM records_foreign WHERE did = $1
		ORDER BY 1`, planned, did)
	if err != nil {
		return nil, fmt.Errorf("read the collections of %s: %w", did, err)
	}
	return found, nil
}

// RepoRecords returns what is stored of one collection of a repository, also of an
// inactive one: up to limit record keys after a given one, in order.
func (w *Writer) RepoRecords(ctx context.Context, did syntax.DID, collection syntax.NSID, after syntax.RecordKey, limit int) ([]Stored, error) {
	found, err := collect(ctx, w.pool, pgx.RowToStructByPos[Stored], `
		SELECT rkey, cid FROM records WHERE collection = `+quote(string(collection))+` AND did = $1 AND rkey > $2 ORDER BY rkey LIMIT $3`,
		planned, did, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the records of %s: %w", record.Key{DID: did, Collection: collection}, err)
	}
	return found, nil
}
