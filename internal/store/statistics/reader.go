package statistics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Reader answers from the views. It is safe for concurrent use, and works on a read
// replica.
type Reader struct{ pool *pgxpool.Pool }

// NewReader takes a pool that may read.
func NewReader(pool *pgxpool.Pool) *Reader { return &Reader{pool: pool} }

// State tells how fresh the views are.
func (r *Reader) State(ctx context.Context) (State, error) { return readState(ctx, r.pool) }

// view runs do on one moment of the views.
func (r *Reader) view(ctx context.Context, do func(pgx.Tx) error) (at time.Time, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, r.pool, options, func(tx pgx.Tx) error {
		state, err := readState(ctx, tx)
		if err != nil {
			return err
		}
		if state.RefreshedAt == nil {
			return ErrNone
		}
		at = state.RefreshedAt.UTC()
		return do(tx)
	})
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == codeNotPopulated { // other tables have just taken the place of these
		err = ErrNone
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read statistics: %w", ended(ctx, err))
	}
	return at, nil
}

const codeNotPopulated = "55000"

// Corpus is what a corpus has; that of the zero key, all expressions. Nil if it was not
// there at that moment.
func (r *Reader) Corpus(ctx context.Context, key record.Key) (c *Corpus, at time.Time, err error) {
	at, err = r.view(ctx, func(tx pgx.Tx) error {
		var found Corpus
		err := tx.QueryRow(ctx, `SELECT expressions, layers, annotations, bytes, covered_bytes, tokens, covered_tokens, memberships, dangling, annotators, languages, splits
			FROM corpus_statistics WHERE did = $1 AND rkey = $2 AND whole`, key.DID, key.Rkey).
			Scan(&found.Expressions, &found.Layers, &found.Annotations, &found.Bytes, &found.CoveredBytes, &found.Tokens, &found.CoveredTokens,
				&found.Memberships, &found.Dangling, &found.Annotators, &found.Languages, &found.Splits)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		c = &found
		c.Parts, c.PartsOmitted, err = parts(ctx, tx, "SELECT kind, subkind, expressions, "+partColumns+" FROM corpus_statistics WHERE did = $1 AND rkey = $2 AND NOT whole", key)
		return err
	})
	return c, at, err
}

const partColumns = "layers, annotations, bytes, covered_bytes, tokens, covered_tokens"

func parts(ctx context.Context, tx pgx.Tx, sql string, key record.Key) ([]Part, bool, error) {
	rows, err := tx.Query(ctx, sql+" ORDER BY annotations DESC, kind, subkind LIMIT $3", key.DID, key.Rkey, MaxParts+1)
	if err != nil {
		return nil, false, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Part])
	if len(found) > MaxParts {
		return found[:MaxParts], true, err
	}
	return found, false, err
}

// Expression is what annotations mark of an expression; nil if it was not there at that
// moment.
func (r *Reader) Expression(ctx context.Context, key record.Key) (e *Expression, at time.Time, err error) {
	at, err = r.view(ctx, func(tx pgx.Tx) error {
		found := Expression{Part: Part{Expressions: 1}}
		err := tx.QueryRow(ctx, "SELECT "+partColumns+" FROM annotation_coverage WHERE did = $1 AND rkey = $2 AND whole", key.DID, key.Rkey).
			Scan(&found.Layers, &found.Annotations, &found.Bytes, &found.CoveredBytes, &found.Tokens, &found.CoveredTokens)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		e = &found
		e.Parts, e.PartsOmitted, err = parts(ctx, tx, "SELECT kind, subkind, 1::bigint, "+partColumns+" FROM annotation_coverage WHERE did = $1 AND rkey = $2 AND NOT whole", key)
		return err
	})
	return e, at, err
}

// LabelQuery asks for the labels of a corpus, the most frequent first; of the zero key,
// for those of all expressions. Empty filters match all.
type LabelQuery struct {
	Corpus        record.Key
	Kind, Subkind *string
	After         *Label // the last of the page before
	Limit         int    // up to MaxLabels
}

// Labels is a page of labels; more tells whether another follows. After a refresh
// between two pages, a label may come again or be passed over.
func (r *Reader) Labels(ctx context.Context, q LabelQuery) (page []Label, more bool, at time.Time, err error) {
	at, err = r.view(ctx, func(tx pgx.Tx) error {
		st := &statement{sql: "SELECT label, kind, subkind, annotations, layers FROM label_distribution"}
		st.where("corpus_did = ", q.Corpus.DID)
		st.where("corpus_rkey = ", q.Corpus.Rkey)
		if q.Kind != nil {
			st.where("kind = ", *q.Kind)
		}
		if q.Subkind != nil {
			st.where("subkind = ", *q.Subkind)
		}
		if a := q.After; a != nil { // the first condition is what the index can begin at
			st.where("annotations <= ", a.Annotations)
			st.sql += fmt.Sprintf(" AND (annotations < %s OR (label, kind, subkind) > (%s, %s, %s))", st.arg(a.Annotations), st.arg(a.Label), st.arg(a.Kind), st.arg(a.Subkind))
		}
		rows, err := tx.Query(ctx, st.sql+" ORDER BY annotations DESC, label, kind, subkind LIMIT "+st.arg(q.Limit+1), st.args...)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Label])
		return err
	})
	if len(page) > q.Limit {
		page, more = page[:q.Limit], true
	}
	return page, more, at, err
}

// statement is a query under construction.
type statement struct {
	sql  string
	args []any
}

func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprintf("$%d", len(s.args))
}

func (s *statement) where(condition string, v any) {
	word := " AND "
	if s.args == nil {
		word = " WHERE "
	}
	s.sql += word + condition + s.arg(v)
}

// Densities are those of references by collection and of relations by their type, each
// with that of the whole first.
func (r *Reader) Densities(ctx context.Context) (references, relations []Density, at time.Time, err error) {
	at, err = r.view(ctx, func(tx pgx.Tx) error {
		for graph, into := range map[string]*[]Density{"references": &references, "relations": &relations} {
			rows, err := tx.Query(ctx, `SELECT name, nodes, edges, resolved, within FROM graph_density WHERE graph = $1
				ORDER BY whole DESC, nodes DESC, name LIMIT $2`, graph, MaxParts+1)
			if err != nil {
				return err
			}
			if *into, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Density]); err != nil {
				return err
			}
		}
		return nil
	})
	return references, relations, at, err
}
