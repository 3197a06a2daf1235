package e2e

import (
	"testing"

	"github.com/layers-pub/layers-appview/test/rig"
)

// deployment is one installation of the program on the four stores.
type deployment struct {
	*rig.Deployment
	t       *testing.T
	checked map[string]string // of values compared once: CID to the text that has it
}

// deploy makes a deployment on empty stores. Settings are further variables, as
// NAME=value.
func deploy(t *testing.T, on rig.Upstream, settings ...string) *deployment {
	t.Helper()
	return &deployment{Deployment: rig.Deploy(t, rig.OpenStores(t), on, settings...), t: t, checked: map[string]string{}}
}

// api starts an API server and returns a client of it.
func (d *deployment) api() *client {
	d.t.Helper()
	return newClient(d.t, d.API())
}
