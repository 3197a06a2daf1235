package graph

import (
	"errors"
	"fmt"
	"strings"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Failure says why one record's subgraph was not written.
type Failure struct {
	Key record.Key
	// Retryable is true where the same write can succeed later: the server is away,
	// overloaded or misconfigured. False means that the subgraph itself is refused.
	Retryable bool
	Err       error
}

// WriteError holds the subgraphs of a [Client.Write] that were not written; all
// others of that call were.
type WriteError struct {
	Failures []Failure
}

// Error names the number of failures and the first of them.
func (e *WriteError) Error() string {
	first := e.Failures[0]
	return fmt.Sprintf("neo4j: %d records not written, the first %s: %v", len(e.Failures), first.Key, first.Err)
}

// Unwrap gives the cause of each failure to errors.Is and errors.As.
func (e *WriteError) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}

// refused tells whether the server's answer condemns what was written. The
// statements are ours and correct, so only their parameters can be at fault, or a
// server that is too old to know their syntax.
func refused(err error) bool {
	var answer *neo4j.Neo4jError
	if !errors.As(err, &answer) || answer.Code == "Neo.ClientError.Statement.SyntaxError" {
		return false
	}
	return strings.HasPrefix(answer.Code, "Neo.ClientError.Statement.") ||
		strings.HasPrefix(answer.Code, "Neo.ClientError.Schema.") ||
		strings.HasPrefix(answer.Code, "Neo.ClientError.Request.")
}

// contended tells whether another transaction was in the way and the same
// transaction may succeed at once. Connection errors are not: waiting for a
// server is the caller's.
func contended(err error) bool {
	var answer *neo4j.Neo4jError
	return errors.As(err, &answer) && neo4j.IsRetryable(err)
}

// away tells whether the server cannot answer for now, whatever is asked: it has gone,
// it is starting or ending, which ends its transactions, or it has failed by itself.
func away(err error) bool {
	var unreachable *neo4j.ConnectivityError
	var answer *neo4j.Neo4jError
	if errors.As(err, &unreachable) || contended(err) {
		return true
	}
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code {
	case "Neo.ClientError.Transaction.Terminated", "Neo.ClientError.Transaction.LockClientStopped":
		return true
	}
	return strings.HasPrefix(answer.Code, "Neo.DatabaseError.")
}

// timedOut tells whether the server ended a transaction at its time.
func timedOut(err error) bool {
	var answer *neo4j.Neo4jError
	return errors.As(err, &answer) && strings.Contains(answer.Code, "TransactionTimedOut")
}
