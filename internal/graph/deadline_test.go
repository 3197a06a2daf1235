package graph

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAbandonedQuestionEndsInTheServer has the server count for longer than anybody
// waits, and looks whether it goes on once nobody does.
func TestAbandonedQuestionEndsInTheServer(t *testing.T) {
	t.Parallel()
	client, err := Open(Config{
		URL: os.Getenv("LAYERS_TEST_NEO4J_URL"), User: os.Getenv("LAYERS_TEST_NEO4J_USER"), Password: os.Getenv("LAYERS_TEST_NEO4J_PASSWORD"), Space: "abandoned",
	})
	require.NoError(t, err, "LAYERS_TEST_NEO4J_URL: run tests by way of `make test`")
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	require.NoError(t, client.Ensure(t.Context()))
	const mark = "abandonedQuestion"
	working := func() int {
		session, err := NewTraversals(client, nil).Begin(t.Context())
		require.NoError(t, err)
		defer func() { _, _ = session.End(t.Context()) }()
		rows, err := session.(*view).run(t.Context(), "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '"+mark+"' AND NOT currentQuery CONTAINS 'SHOW' RETURN currentQuery", nil)
		require.NoError(t, err)
		return len(rows)
	}

	ctx, cancel := context.WithCancel(t.Context())
	v, err := NewTraversals(client, nil).Begin(ctx)
	require.NoError(t, err)
	asked := make(chan error, 1)
	go func() {
		_, err := v.(*view).run(ctx, "UNWIND range(1, 1000000000000) AS "+mark+" RETURN count("+mark+" % 7)", nil)
		asked <- err
	}()
	require.Eventually(t, func() bool { return working() == 1 }, time.Minute, 10*time.Millisecond)
	cancel()
	require.Error(t, <-asked)
	_, err = v.End(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return working() == 0 }, time.Minute, 10*time.Millisecond, "the server goes on")
}
