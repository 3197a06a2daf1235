package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

func TestASchemaIsOldUntilEveryMigrationIsApplied(t *testing.T) {
	t.Parallel()
	url := storetest.Empty(t)
	pool, err := store.Open(t.Context(), store.Config{URL: url, ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.ErrorIs(t, store.CheckSchema(t.Context(), pool), store.ErrOldSchema, "an empty database")

	require.NoError(t, store.Migrate(t.Context(), url, partitions, silent))
	reader, err := store.Open(t.Context(), store.Config{URL: url, ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(reader.Close)
	require.NoError(t, store.CheckSchema(t.Context(), reader), "as the role that may only read")

	require.NoError(t, store.MigrateDown(t.Context(), url, 5))
	require.ErrorIs(t, store.CheckSchema(t.Context(), reader), store.ErrOldSchema, "an older release's")
}
