package query

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	// ErrUnavailable says that the store that searches does not answer: ask later.
	ErrUnavailable = errors.New("the search does not answer")

	// ErrCursorExpired says that a walk through pages was left for too long: begin again
	// without a cursor.
	ErrCursorExpired = errors.New("the cursor has expired: ask again without it, and begin with the first page")

	// ErrCursor says that a cursor is none, or another question's.
	ErrCursor = errors.New("the cursor does not belong to this question: pass the one that the same question returned, or none")
)

// SyntaxError says where in what a user typed something cannot be understood, and
// what to do.
type SyntaxError struct {
	Byte    int // where
	Char    int // the same in characters, from 0
	Problem string
	Remedy  string
}

// Error names the position from 1, as people count.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("at character %d: %s; %s", e.Char+1, e.Problem, e.Remedy)
}

func wrong(text string, at int, remedy, problem string, args ...any) error {
	return &SyntaxError{Byte: at, Char: utf8.RuneCountInString(text[:at]), Problem: fmt.Sprintf(problem, args...), Remedy: remedy}
}

// Invalid says which part of a question cannot be answered, and why.
type Invalid struct {
	Part    string // text, types, filters, facets, annotations, limit
	Problem string
}

// Error names the part.
func (e *Invalid) Error() string { return e.Part + ": " + e.Problem }

func invalid(part, problem string, args ...any) error {
	return &Invalid{Part: part, Problem: fmt.Sprintf(problem, args...)}
}
