package indexer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheLagGrowsWhileFramesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := newLagClock()
		clock.came()
		clock.applied(2 * time.Second)
		clock.left(1)
		time.Sleep(time.Hour) // quiet: nothing waits
		require.InDelta(t, 2, clock.seconds(), 0)

		clock.came()
		clock.came()
		time.Sleep(time.Minute) // stuck
		require.InDelta(t, 62, clock.seconds(), 0)
		clock.applied(60 * time.Second)
		clock.left(1)
		time.Sleep(time.Second)
		require.InDelta(t, 61, clock.seconds(), 0)
		clock.left(1)
		time.Sleep(time.Hour)
		require.InDelta(t, 60, clock.seconds(), 0)
	})
}
