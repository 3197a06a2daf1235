// Package faults has the tests that trust nothing: the whole program, run as a
// process against real stores, follows a simulated network in which things go wrong,
// and must end with what its accounts have written.
//
// What that is, is kept by the oracle (oracle_test.go) as it is written: it shares no
// code with the indexer, down to an encoder of its own, and reads the stores by plain
// SQL and the API as a client does. Each fault counts how often it fired, and a test
// whose fault did not happen has failed. What a test draws at random follows from its
// name, so that a change is held to what the last one was held to. LAYERS_FAULTS_SEED
// gives another seed, LAYERS_FAULTS_LONG=1 has it draw more, and anew each time.
package faults

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m))
}

// seeded makes a test's dice, and tells their seed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	name := fnv.New64a()
	_, _ = name.Write([]byte(t.Name()))
	seed := name.Sum64()
	if long(0, 1) > 0 {
		seed = rand.Uint64()
	}
	if given := os.Getenv("LAYERS_FAULTS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("LAYERS_FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// long is how much more a test does where there is time for it.
func long(usual, more int) int {
	if os.Getenv("LAYERS_FAULTS_LONG") != "" {
		return more
	}
	return usual
}

// withOthers adds faults where there is time for them, and says so where there is not.
func withOthers[F any](t *testing.T, tried, others []F) []F {
	t.Helper()
	if long(0, 1) == 0 {
		t.Logf("%d faults are tried; LAYERS_FAULTS_LONG=1 tries %d others of the same classes", len(tried), len(others))
		return tried
	}
	return append(tried, others...)
}
