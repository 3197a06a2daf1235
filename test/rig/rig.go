// Package rig runs the whole program for tests that see it from outside: the
// program is built once and run as processes of its own, against part of the real
// stores, each behind a proxy that can do what networks do.
package rig

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

var program string // the path of the program under test

// Dir is a directory that lives as long as the tests of the package.
func Dir() string { return filepath.Dir(program) }

// Main builds the program and runs the tests; it is what TestMain does.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "layers-test-")
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

// FreeAddress is one on which nobody listens, host:port.
func FreeAddress(t *testing.T) string {
	t.Helper()
	port, err := daemon.FreePort()
	require.NoError(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func ready(base string) (bool, string) {
	response, err := http.Get(base + "/ready")
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK, response.Status
}
