//go:build deploy

package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each check refuses what it is there to refuse.
func TestFaultsAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	conform := func(file string) error {
		_, err := sh(`kubeconform_strict ${kubernetes_versions#* } "` + file + `"`)
		return err
	}
	prod := overlay(t, "prod")
	canary := kustomization(t, "rollout/canary")
	gitops := kustomization(t, "gitops") + "---\n" + kustomization(t, "gitops/flux")
	for name, fault := range map[string]struct{ text, old, new string }{
		"unknown field of a pod":       {prod, "automountServiceAccountToken: false", "autoMountServiceAccountToken: false"},
		"wrong type":                   {prod, "minReplicas: 2", "minReplicas: two"},
		"field that is required":       {prod, "maxReplicas: 10", "behaviour: {}"},
		"version that is gone":         {prod, "apiVersion: autoscaling/v2", "apiVersion: autoscaling/v2beta2"},
		"kind that there is not":       {prod, "kind: NetworkPolicy", "kind: NetworkPolice"},
		"field of an ExternalSecret":   {prod, "refreshInterval:", "refreshIntervall:"},
		"field of a SecretStore":       {prod, "caProvider:", "caProviders:"},
		"field of a Rollout":           {canary, "stableIngresses:", "stableIngreses:"},
		"field of an AnalysisTemplate": {canary, "failureLimit:", "failureLimits:"},
		"field of an Application":      {gitops, "selfHeal:", "selfheal:"},
		"field of Flux":                {gitops, "retryInterval:", "retryIntervals:"},
	} {
		changed := strings.Replace(fault.text, fault.old, fault.new, 1)
		require.NotEqual(t, fault.text, changed, name)
		require.Error(t, conform(write("fault.yaml", changed)), name)
	}
	require.NoError(t, conform(write("fault.yaml", prod)), "without a fault")

	_, err := sh(`"$helm" lint --strict ` + chart + ` --set api.autoscaling.minReplicas=none`)
	require.ErrorContains(t, err, "minReplicas")
	_, err = sh(`"$hadolint" - <<<'FROM debian:latest
RUN cd /tmp && apt-get install curl'`)
	require.Error(t, err)
	_, err = sh(`"$compose" -f "` + write("compose.yml", "services: {a: {image: b, healthchek: {test: [CMD, c]}}}") + `" config -q`)
	require.ErrorContains(t, err, "healthchek")
}
