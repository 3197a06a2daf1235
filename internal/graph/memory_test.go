package graph

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemoryForgetsTheLeastRecent(t *testing.T) {
	t.Parallel()
	var m memory
	batch := func(first, n int) map[string]int64 {
		ids := map[string]int64{}
		for i := first; i < first+n; i++ {
			ids[fmt.Sprint(i)] = int64(i)
		}
		return ids
	}
	require.False(t, m.add(batch(0, maxYoung)))
	require.False(t, m.add(batch(maxYoung, maxYoung)), "all of both halves is known")
	id, ok := m.id("7")
	require.True(t, ok)
	require.EqualValues(t, 7, id)
	require.True(t, m.add(batch(2*maxYoung, 10)), "others are forgotten")
	_, ok = m.id("7")
	require.True(t, ok, "what was asked for is kept")
	_, ok = m.id("8")
	require.False(t, ok)
	_, ok = m.id(fmt.Sprint(maxYoung + 1))
	require.True(t, ok)
}
