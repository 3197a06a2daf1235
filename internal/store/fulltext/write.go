package fulltext

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Document is what is searched of one record.
type Document struct {
	Key       record.Key
	Version   int64
	CID       syntax.CID
	CreatedAt time.Time // zero where the record claims none
	// Body is what the search index would hold of the record; nil deletes the document.
	Body json.RawMessage
}

// Documents keeps the table of documents. It is safe for concurrent use.
type Documents struct {
	pool   *pgxpool.Pool
	schema *query.Schema
}

// NewDocuments takes a pool that may write.
func NewDocuments(pool *pgxpool.Pool, schema *query.Schema) *Documents {
	return &Documents{pool: pool, schema: schema}
}

const maxTransaction = 8 << 20 // bytes of documents

// Write puts documents in the place of those that there were. One of which a newer
// version has been written is passed over. Of a deleted account's nothing stays.
// Errors that are [store.ErrRejected] are of what was sent: write documents one by one
// to find the one at fault. Each key may be there once.
func (d *Documents) Write(ctx context.Context, docs []Document) error {
	// Two workers that meet the same documents lock them in the same order.
	docs = slices.SortedFunc(slices.Values(docs), func(a, b Document) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	for len(docs) > 0 {
		n, size := 0, 0
		for ; n < len(docs) && (n == 0 || size+len(docs[n].Body) <= maxTransaction); n++ {
			size += len(docs[n].Body)
		}
		if err := d.writeSome(ctx, docs[:n]); err != nil {
			return fmt.Errorf("write %d documents for search: %w", n, store.Rejected(err))
		}
		docs = docs[n:]
	}
	return nil
}

func (d *Documents) writeSome(ctx context.Context, docs []Document) error {
	batch := &pgx.Batch{}
	var collections, dids, rkeys []string
	for _, doc := range docs {
		r, err := d.row(doc)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", doc.Key, store.ErrRejected, err)
		}
		batch.Queue(`
			INSERT INTO search_documents AS d (collection, did, rkey, version, deleted, cid, created_at, sort_key, title, terms, completions, vector, partial, words, fields, passages)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, array_to_tsvector($11::text[]), $12::text::tsvector, $13, $14, $15::text::jsonb, $16::text::json)
			ON CONFLICT (collection, did, rkey) DO UPDATE SET version = excluded.version, deleted = excluded.deleted, cid = excluded.cid,
				created_at = excluded.created_at, sort_key = excluded.sort_key, title = excluded.title, terms = excluded.terms, completions = excluded.completions,
				vector = excluded.vector, partial = excluded.partial, words = excluded.words, fields = excluded.fields, passages = excluded.passages
				WHERE d.version <= excluded.version`,
			doc.Key.Collection, doc.Key.DID, doc.Key.Rkey, doc.Version, doc.Body == nil, doc.CID, r.created, r.sort, r.title, r.terms, r.completions,
			r.vector, r.partial, r.words, r.fields, r.passages)
		collections, dids, rkeys = append(collections, string(doc.Key.Collection)), append(dids, string(doc.Key.DID)), append(rkeys, string(doc.Key.Rkey))
	}
	// A statement of its own, begun when the documents are locked: whoever wrote one
	// before it saw the account go did so before the removal of the account's records,
	// which comes behind, and waits.
	batch.Queue(`
		DELETE FROM search_documents d USING unnest($1::text[], $2::text[], $3::text[]) AS k (collection, did, rkey)
		WHERE d.collection = k.collection AND d.did = k.did AND d.rkey = k.rkey
			AND EXISTS (SELECT FROM repos WHERE repos.did = k.did AND NOT active AND status = '`+store.StatusDeleted+`')`, collections, dids, rkeys)
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
}

// Clear removes all documents, for a deployment that does not keep them any more.
func (d *Documents) Clear(ctx context.Context) error {
	var some bool
	if err := d.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM search_documents)").Scan(&some); err != nil {
		return fmt.Errorf("look for documents for search: %w", err)
	}
	if !some {
		return nil
	}
	if _, err := d.pool.Exec(ctx, "TRUNCATE search_documents"); err != nil {
		return fmt.Errorf("remove the documents for search: %w", err)
	}
	return nil
}
