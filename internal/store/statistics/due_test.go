package statistics

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCheapRefreshesComeSooner(t *testing.T) {
	r := &Refresher{interval: 15 * time.Minute}
	for _, c := range []struct {
		took, age time.Duration
		due       bool
	}{
		{time.Millisecond, 29 * time.Second, false}, {time.Millisecond, 30 * time.Second, true},
		{2 * time.Second, time.Minute, false}, {2 * time.Second, 2 * time.Minute, true},
		{time.Minute, 14 * time.Minute, false}, {time.Minute, 15 * time.Minute, true},
	} {
		require.Equal(t, c.due, r.due(State{Took: c.took, age: c.age}), "%+v", c)
	}
	require.True(t, (&Refresher{interval: time.Second}).due(State{age: time.Second}))
}
