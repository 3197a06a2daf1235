package traversal

import (
	"context"
	"errors"
	"fmt"
)

// ErrDeadline says that a question was not answered in time. It is a
// [context.DeadlineExceeded].
var ErrDeadline = fmt.Errorf("the graph was not traversed in time; ask for fewer hops or edge types: %w", context.DeadlineExceeded)

// ErrUnavailable says that the store of the graph cannot be asked at present.
var ErrUnavailable = errors.New("the graph is not available at present")

// InvalidError says that a question makes no sense, and what to ask instead.
type InvalidError struct {
	Parameter string // limit, depth, edge_type, direction, cursor, …
	Message   string
}

func (e *InvalidError) Error() string { return e.Parameter + ": " + e.Message }

func invalid(parameter, format string, args ...any) error {
	return &InvalidError{Parameter: parameter, Message: fmt.Sprintf(format, args...)}
}

// TooLargeError says that an answer would need more edges than are read for one question.
type TooLargeError struct {
	Read   int    // edges or nodes that were too many
	Narrow string // what to ask for less of
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("more than %d edges would have to be read: %s", e.Read, e.Narrow)
}

// explain makes an error of the context of what a store says when its time is over.
func explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w (%v)", ErrDeadline, err) //nolint:errorlint // what the store says is for the log
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}
