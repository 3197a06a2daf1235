package graph

import (
	"errors"
	"fmt"
	"testing"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/traversal"
)

// TestWhatAServerSaysOfItself has the codes by which servers tell that they are starting,
// ending or broken, and those by which they condemn a question.
func TestWhatAServerSaysOfItself(t *testing.T) {
	t.Parallel()
	for code, unavailable := range map[string]bool{
		"Neo.TransientError.General.DatabaseUnavailable":    true,
		"Neo.TransientError.Transaction.Terminated":         true,
		"Neo.ClientError.Transaction.Terminated":            true,
		"Neo.ClientError.Transaction.LockClientStopped":     true,
		"Neo.DatabaseError.General.UnknownError":            true,
		"Neo.DatabaseError.Transaction.TransactionLogError": true,
		"Neo.ClientError.Statement.SyntaxError":             false,
		"Neo.ClientError.Security.Forbidden":                false,
	} {
		err := explain(fmt.Errorf("ask: %w", &neo4j.Neo4jError{Code: code}))
		require.Equal(t, unavailable, errors.Is(err, traversal.ErrUnavailable), code)
	}
}
