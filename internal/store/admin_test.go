package store_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

func TestActionAndItsNoteAreOne(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var logged bytes.Buffer
	log := store.NewAdminLog(db.Pool, slog.New(slog.NewTextHandler(&logged, nil)))
	letters := store.NewDeadLetters(db.Pool)
	require.NoError(t, letters.Add(t.Context(), []store.DeadLetter{{Stage: "frame", Raw: []byte("x")}}))
	found, err := letters.List(t.Context(), store.LetterFilter{}, 0, 1)
	require.NoError(t, err)
	one := store.LetterFilter{IDs: []int64{found[0].ID}}
	drop := store.AdminAction{Actor: "did:web:a.example\n", Via: store.ViaHTTP, Action: "dlq.drop", Subject: "1", RequestID: "r1"}
	broken := errors.New("broken")

	err = log.Within(t.Context(), drop, func(tx pgx.Tx) (string, error) {
		n, err := store.NewDeadLetters(tx).Delete(t.Context(), one)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		return "", broken
	})
	require.ErrorIs(t, err, broken)
	n, err := letters.Count(t.Context(), one)
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "it was not done")

	require.NoError(t, log.Within(t.Context(), drop, func(tx pgx.Tx) (string, error) {
		n, err := store.NewDeadLetters(tx).Delete(t.Context(), one)
		require.EqualValues(t, 1, n)
		return "1 dropped", err
	}))
	n, err = letters.Count(t.Context(), one)
	require.NoError(t, err)
	require.Zero(t, n)

	noted, err := log.List(t.Context(), store.AdminFilter{Action: "dlq.drop"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, noted, 2)
	require.Equal(t, []store.Outcome{store.Done, store.Failed}, []store.Outcome{noted[0].Outcome, noted[1].Outcome})
	require.Equal(t, "1 dropped", noted[0].Detail)
	require.Contains(t, noted[1].Detail, "broken")
	require.Equal(t, "did:web:a.example\n", noted[0].Actor)
	require.WithinDuration(t, time.Now(), noted[0].At, time.Hour)
	require.NotContains(t, logged.String(), "example\n ", "a line of the log is one line")
	require.Contains(t, logged.String(), "requestId=r1")
	before, err := log.List(t.Context(), store.AdminFilter{Actor: noted[0].Actor, RequestID: "r1"}, noted[0].ID, 10)
	require.NoError(t, err)
	require.Equal(t, noted[1:], before)

	for _, statement := range []string{"UPDATE admin_actions SET actor = 'nobody'", "DELETE FROM admin_actions", "TRUNCATE admin_actions"} {
		requireCode(t, "42501", db.Pool, statement)
	}
}

func TestTokensAreSpentOnce(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	log := store.NewAdminLog(db.Pool, silent)
	spend := func(token string, expires time.Time) bool {
		fresh, err := log.Spend(t.Context(), token, expires)
		require.NoError(t, err)
		return fresh
	}
	later := time.Now().Add(time.Hour)
	require.True(t, spend("one", later))
	require.False(t, spend("one", later))
	require.True(t, spend("two", time.Now().Add(-time.Hour)))
	require.True(t, spend("three", later))
	var left int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM admin_tokens").Scan(&left))
	require.Equal(t, 2, left, "what has expired is forgotten")
}
