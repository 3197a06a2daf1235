package xrpc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatchesComparesWeakly(t *testing.T) {
	t.Parallel()
	const tag = `W/"bafyrei1"`
	for field, want := range map[string]bool{
		`"bafyrei1"`:               true,
		`W/"bafyrei1"`:             true,
		`"bafyrei0", W/"bafyrei1"`: true,
		`*`:                        true,
		``:                         false,
		`"bafyrei2"`:               false,
		`bafyrei1`:                 false,
	} {
		require.Equal(t, want, matches([]string{field}, tag), field)
	}
	require.False(t, matches(nil, tag))
	require.True(t, matches([]string{`"x"`, tag}, tag))
}
