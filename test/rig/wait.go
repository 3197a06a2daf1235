package rig

import (
	"testing"
	"time"
)

// Patience is how long anything may go without progress that should happen within
// seconds. It is generous because the machine is shared: tests wait for conditions,
// and no assertion depends on how long that takes.
const Patience = 3 * time.Minute

// longest bounds a wait that has progress all the time, and never comes to an end. It
// is a multiple of the Patience.
const longest = 5

// PollEvery is how often a condition is looked at.
const PollEvery = 25 * time.Millisecond

// Eventually polls until the condition holds. The condition says how far it is: for
// the failure's message, and since the Patience begins anew whenever that changes, up
// to five times as long in all. So what it says must change with progress alone. It
// fails the test when the Patience ends, or as soon as a Process that should live has
// died.
func Eventually(t *testing.T, what string, condition func() (ok bool, progress string), alive ...*Process) {
	t.Helper()
	Within(t, Patience, what, condition, alive...)
}

// Within is Eventually with another Patience.
func Within(t *testing.T, patience time.Duration, what string, condition func() (ok bool, progress string), alive ...*Process) {
	t.Helper()
	began := time.Now()
	moved, before := began, ""
	for {
		ok, progress := condition()
		if ok {
			t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
		for _, p := range alive {
			if !p.Alive() {
				t.Fatalf("waiting for %s (%s): %s has ended: %v", what, progress, p.Name, p.Failure())
			}
		}
		if progress != before {
			moved, before = time.Now(), progress
		}
		if time.Since(moved) > patience || time.Since(began) > longest*patience {
			t.Fatalf("waited %s for %s: %s", time.Since(began).Round(time.Second), what, progress)
		}
		time.Sleep(PollEvery)
	}
}
