package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSmallDrill loses a small installation and gets it back in every way. What has to
// hold is checked by the drill itself, which fails otherwise.
func TestSmallDrill(t *testing.T) {
	var said bytes.Buffer
	figures, err := Run(t.Context(), Config{Records: 600, PerCommit: 10, Rate: 40, Scripts: "../../k8s/disaster-recovery/scripts", Out: &said})
	t.Logf("%s\n%s", said.String(), figures)
	require.NoError(t, err)
	require.Greater(t, figures.Records, 200)
	require.Positive(t, figures.Ahead)
	require.Positive(t, figures.took("everything fetched anew from the network into empty stores"))
	require.GreaterOrEqual(t, figures.LostEvents, int64(0))
}
