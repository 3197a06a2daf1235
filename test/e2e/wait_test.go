package e2e

import (
	"testing"
	"time"
)

// patience is how long anything may take that should happen within seconds. It is
// generous because the machine is shared: tests wait for conditions, and no
// assertion depends on how long that takes.
const patience = 3 * time.Minute

const pollEvery = 25 * time.Millisecond

// eventually polls until the condition holds. The condition says how far it is, for
// the failure's message. It fails the test when the patience ends, or as soon as a
// process that should live has died.
func eventually(t *testing.T, what string, condition func() (ok bool, progress string), alive ...*process) {
	t.Helper()
	began := time.Now()
	for {
		ok, progress := condition()
		if ok {
			t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
		for _, p := range alive {
			if !p.alive() {
				t.Fatalf("waiting for %s (%s): %s has ended: %v", what, progress, p.name, p.failure())
			}
		}
		if time.Since(began) > patience {
			t.Fatalf("waited %s for %s: %s", patience, what, progress)
		}
		time.Sleep(pollEvery)
	}
}
