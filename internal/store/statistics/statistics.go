// Package statistics counts what there is: how large a corpus is, how much of a text is
// annotated, which labels are used how often, how densely records refer to one another.
// The figures are materialised views inside PostgreSQL, of one moment; a [Refresher]
// brings them up to date, and a [Reader] answers from them and says of which moment they
// are. Records of inactive accounts are not counted.
package statistics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNone says that the views have not been filled yet: ask later.
var ErrNone = errors.New("the statistics have not been computed yet")

// Bounds of an answer.
const (
	MaxParts  = 100 // kinds of layers, those with most annotations
	MaxLabels = 500 // of one page
)

// State is how fresh the views are.
type State struct {
	RefreshedAt *time.Time    // the moment that they show; nil: they are empty
	Took        time.Duration // the last refresh
	FailedAt    *time.Time    // the last attempt, if it failed
	Error       string

	age time.Duration // by the server's clock
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readState(ctx context.Context, q querier) (s State, err error) {
	var took, age float64
	err = q.QueryRow(ctx, "SELECT refreshed_at, seconds, failed_at, error, coalesce(extract(epoch FROM now() - refreshed_at), 0)::float8 FROM statistics").
		Scan(&s.RefreshedAt, &took, &s.FailedAt, &s.Error, &age)
	if err != nil {
		return State{}, fmt.Errorf("read how fresh the statistics are: %w", ended(ctx, err))
	}
	s.Took, s.age = time.Duration(took*float64(time.Second)), time.Duration(age*float64(time.Second))
	return s, nil
}

// Count is how many have a value.
type Count struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}

// Part is what layers of one kind and subkind mark of texts, or layers of any kind.
type Part struct {
	Kind, Subkind         string
	Expressions           int64 // that have such layers; of the whole: that there are
	Layers, Annotations   int64
	Bytes, CoveredBytes   int64 // of the texts of these expressions, and in spans of annotations
	Tokens, CoveredTokens int64 // of the tokenizations that the layers count in
}

// Corpus is what a corpus has.
type Corpus struct {
	Part                 // of layers of any kind
	Memberships  int64   // records; two may be of one expression
	Dangling     int64   // expressions that are not in the index
	Annotators   int64   // repositories with layers
	Languages    []Count // of its expressions, the first 50
	Splits       []Count
	Parts        []Part // the first MaxParts, those with most annotations first
	PartsOmitted bool
}

// Expression is what annotations mark of a text.
type Expression struct {
	Part         // of layers of any kind
	Parts        []Part
	PartsOmitted bool
}

// Label is how often layers of a kind use a label.
type Label struct {
	Label, Kind, Subkind string
	Annotations, Layers  int64
}

// Density is how many edges a graph has.
type Density struct {
	Name     string // a collection or a type of relation
	Nodes    int64
	Edges    int64
	Resolved int64 // edges whose ends are there
	Within   int64 // resolved edges to the same collection
}

// ended adds to an error that the context has ended. PostgreSQL only says that it was
// asked to cancel the query.
func ended(ctx context.Context, err error) error {
	if cause := ctx.Err(); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}
