// Package security runs the whole program as processes and sees what it gives away,
// and to whom.
package security

import (
	"os"
	"testing"

	"github.com/layers-pub/layers-appview/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
