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
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the path of the program under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "layers-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "layers")
	build := exec.Command("go", "build", "-o", program, "github.com/layers-pub/layers-appview/cmd/layers")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program under test: %v\n%s", err, output)
		return 1
	}
	return m.Run()
}
