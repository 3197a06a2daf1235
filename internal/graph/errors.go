package graph

import (
	"errors"
	"strings"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
)

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
