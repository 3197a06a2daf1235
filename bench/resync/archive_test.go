package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

// TestArchive reads what was built from the leaves up as anybody else would, and
// puts the same records into a tree one by one: it has to be the same tree.
func TestArchive(t *testing.T) {
	t.Parallel()
	key, err := atcrypto.GeneratePrivateKeyK256()
	require.NoError(t, err)
	public, err := key.PublicKey()
	require.NoError(t, err)
	for _, s := range []state{{0, false}, {1, false}, {3000, false}, {3000, true}} {
		path := filepath.Join(t.TempDir(), "repo.car")
		file, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, s.write(file, account, key))
		require.NoError(t, file.Close())

		file, err = os.Open(path)
		require.NoError(t, err)
		commit, held, err := repo.LoadRepoFromCAR(t.Context(), file)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		require.NoError(t, commit.VerifySignature(public))
		require.NoError(t, held.MST.Verify())
		count, again := 0, mst.NewEmptyTree()
		require.NoError(t, held.MST.Walk(func(path []byte, address cid.Cid) error {
			count++
			require.True(t, strings.HasPrefix(string(path), string(collection)))
			_, err := again.Insert(path, address)
			return err
		}))
		require.Equal(t, s.present(), count)
		root, err := again.RootCID()
		require.NoError(t, err)
		require.Equal(t, *root, commit.Data)
	}
}
