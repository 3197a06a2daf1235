package verify_test

import (
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// BenchmarkCommit verifies a single-record commit to a repository of 1,000 records.
func BenchmarkCommit(b *testing.B) {
	n := newNetwork(b)
	for i := range 1000 {
		_, err := n.world.Commit(n.did, simulate.Create(note, syntax.RecordKey(fmt.Sprintf("r%04d", i)), value("a")))
		require.NoError(b, err)
	}
	msg := n.last(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.verifier.Commit(b.Context(), msg, all); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignature is the bare cost of one K-256 verification, the floor of the above.
func BenchmarkSignature(b *testing.B) {
	private, err := atcrypto.GeneratePrivateKeyK256()
	require.NoError(b, err)
	public, err := private.PublicKey()
	require.NoError(b, err)
	message := make([]byte, 200)
	signature, err := private.HashAndSign(message)
	require.NoError(b, err)
	for b.Loop() {
		if err := public.HashAndVerify(message, signature); err != nil {
			b.Fatal(err)
		}
	}
}
