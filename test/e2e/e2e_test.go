// Package e2e has the tests that see the whole program from outside: `layers
// migrate`, `indexer`, `worker`, `api` and `verify`, built once and run as
// processes of their own against the four real stores and an AT Protocol network.
//
// What must be in the index is always asked of the network: the journal of the
// simulated one, the repositories of the real one. What is in the index is asked
// of each store directly, and of the API as a client would. None of the program's
// own packages stand between the two; from them come only the network, the words
// of package record, and which queries the lexicons declare.
package e2e

import (
	"os"
	"testing"

	"github.com/layers-pub/layers-appview/test/rig"
)

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m))
}
