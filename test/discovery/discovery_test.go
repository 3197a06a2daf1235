// Package discovery asks what researchers ask: the twelve use cases of discovery and
// the questions of the design, over HTTP, of `layers api` on data that came by the
// firehose of a simulated network through `layers indexer`.
//
// What is right is worked out here from the records as they were published, by plain
// loops that share nothing with the program. Which store has answered is shown by
// taking stores away: a question has to be answered the same without those that it
// does not need, and refused or marked as degraded without the one that it does.
package discovery

import (
	"os"
	"testing"

	"github.com/layers-pub/layers-appview/test/rig"
)

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m))
}
