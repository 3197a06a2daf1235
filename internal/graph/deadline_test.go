package graph

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/traversal"
)

// TestAbandonedQuestionEndsInTheServer has the server count for longer than anybody
// waits, and looks whether it goes on once nobody does.
func TestAbandonedQuestionEndsInTheServer(t *testing.T) {
	t.Parallel()
	q := askEndlessly(t, "abandonedQuestion")
	q.giveUp()
	require.Error(t, <-q.answer)
	_, err := q.view.End(q.ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(q.working()) == 0 }, time.Minute, 10*time.Millisecond, "the server goes on")
}

// TestQuestionThatTheServerEndsIsUnavailable has the server end a question, as it does
// with all that it works on when it is stopped.
func TestQuestionThatTheServerEndsIsUnavailable(t *testing.T) {
	t.Parallel()
	q := askEndlessly(t, "endedQuestion")
	for _, row := range q.working() {
		q.run("TERMINATE TRANSACTION $id", map[string]any{"id": row.Values[0]})
	}
	require.ErrorIs(t, <-q.answer, traversal.ErrUnavailable)
	_, err := q.view.End(q.ctx)
	require.NoError(t, err)
}

// endless is a question that the server is at work on.
type endless struct {
	t      *testing.T
	client *Client
	mark   string // is in its text
	ctx    context.Context
	giveUp func()
	view   traversal.View
	answer chan error
}

func askEndlessly(t *testing.T, mark string) *endless {
	t.Helper()
	client, err := Open(Config{
		URL: os.Getenv("LAYERS_TEST_NEO4J_URL"), User: os.Getenv("LAYERS_TEST_NEO4J_USER"), Password: os.Getenv("LAYERS_TEST_NEO4J_PASSWORD"), Space: "abandoned",
	})
	require.NoError(t, err, "LAYERS_TEST_NEO4J_URL: run tests by way of `make test`")
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	require.NoError(t, client.Ensure(t.Context()))
	q := &endless{t: t, client: client, mark: mark, answer: make(chan error, 1)}
	q.ctx, q.giveUp = context.WithCancel(t.Context())
	t.Cleanup(q.giveUp)
	q.view, err = NewTraversals(client, nil).Begin(q.ctx)
	require.NoError(t, err)
	go func() {
		_, err := q.view.(*view).run(q.ctx, "UNWIND range(1, 1000000000000) AS "+mark+" RETURN count("+mark+" % 7)", nil)
		q.answer <- err
	}()
	require.Eventually(t, func() bool { return len(q.working()) == 1 }, time.Minute, 10*time.Millisecond)
	return q
}

// working are the transactions in which the server works on it.
func (q *endless) working() []*neo4j.Record {
	q.t.Helper()
	return q.run("SHOW TRANSACTIONS YIELD transactionId, currentQuery WHERE currentQuery CONTAINS '"+q.mark+"' AND NOT currentQuery CONTAINS 'SHOW' RETURN transactionId", nil)
}

// run runs another statement beside it.
func (q *endless) run(cypher string, params map[string]any) []*neo4j.Record {
	q.t.Helper()
	session, err := NewTraversals(q.client, nil).Begin(q.t.Context())
	require.NoError(q.t, err)
	defer func() { _, _ = session.End(q.t.Context()) }()
	rows, err := session.(*view).run(q.t.Context(), cypher, params)
	require.NoError(q.t, err)
	return rows
}
