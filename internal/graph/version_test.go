package graph

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestServersThatAreTooOld(t *testing.T) {
	t.Parallel()
	for version, old := range map[string]bool{
		"4.4.40": true, "5.4.0": true, "5.25.1": true, "5.26.0": false, "5.26.10": false, "2025.06.2": false, "": false, "next": false,
	} {
		assert.Equal(t, old, tooOld(version), version)
	}
}
