//go:build deploy

package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// environments are the overlays, with the namespace of each.
var environments = map[string]string{"dev": "layers-dev", "staging": "layers-staging", "prod": "layers"}

const chart = `"$root/k8s/helm/layers-appview"`

// object is one of Kubernetes'.
type object map[string]any

// at walks to a field; a number is a place in a list. It is nil if there is none.
func (o object) at(path ...any) any {
	var value any = map[string]any(o)
	for _, step := range path {
		switch step := step.(type) {
		case string:
			fields, _ := value.(map[string]any)
			value = fields[step]
		case int:
			items, _ := value.([]any)
			if step >= len(items) {
				return nil
			}
			value = items[step]
		}
	}
	return value
}

func (o object) String() string {
	return fmt.Sprintf("%v/%v/%v", o["kind"], o.at("metadata", "namespace"), o.at("metadata", "name"))
}

// sh runs a line of shell in which the tools have the names that tools.sh gives them.
func sh(line string) (out string, err error) {
	var stdout, stderr bytes.Buffer
	command := exec.Command("bash", "-c", "set -euo pipefail; . ./tools.sh; "+line)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", line, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// built is what comes of each kustomization, by its folder below k8s.
var built = sync.OnceValues(func() (map[string]string, error) {
	folders, err := sh(`kustomizations | sed "s#^$root/k8s/##"`)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for folder := range strings.FieldsSeq(folders) {
		if out[folder], err = sh(`kubectl kustomize "$root/k8s/` + folder + `"`); err != nil {
			return nil, err
		}
	}
	return out, nil
})

func kustomization(t *testing.T, folder string) string {
	t.Helper()
	all, err := built()
	require.NoError(t, err)
	require.Contains(t, all, folder)
	return all[folder]
}

func overlay(t *testing.T, name string) string {
	t.Helper()
	return kustomization(t, "overlays/"+name)
}

func release(t *testing.T, name string) string {
	t.Helper()
	out, err := sh(`"$helm" template layers ` + chart + ` -n ` + environments[name] + ` -f ` + chart + `/ci/` + name + `-values.yaml`)
	require.NoError(t, err)
	return out
}

func parse(t *testing.T, text string) map[string]object {
	t.Helper()
	objects := map[string]object{}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o map[string]any
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		if len(o) > 0 {
			key := object(o).String()
			require.False(t, objects[key] != nil, "%s twice", key)
			objects[key] = o
		}
	}
}

// settingsName is a ConfigMap's, whose end is a hash that each tool makes its own way.
var settingsName = regexp.MustCompile(`layers-settings-[0-9a-z]{10}\b`)

// released are a chart's objects without what is the tool's own: labels that name it,
// and the hooks of `helm test`.
func released(t *testing.T, text string) map[string]object {
	t.Helper()
	objects := parse(t, settingsName.ReplaceAllString(text, "layers-settings-HASH"))
	maps.DeleteFunc(objects, func(_ string, o object) bool { return o.at("metadata", "annotations", "helm.sh/hook") != nil })
	for _, o := range objects {
		if labels, ok := o.at("metadata", "labels").(map[string]any); ok {
			delete(labels, "helm.sh/chart")
			delete(labels, "app.kubernetes.io/managed-by")
		}
	}
	return objects
}

func TestChartAndOverlaysRenderTheSameObjects(t *testing.T) {
	t.Parallel()
	for name := range environments {
		want := parse(t, settingsName.ReplaceAllString(overlay(t, name), "layers-settings-HASH"))
		got := released(t, release(t, name))
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)), name)
		for key, o := range want {
			require.Equal(t, o, got[key], "%s: %s", name, key)
		}
	}
}

func TestTheComparisonNoticesADifference(t *testing.T) {
	t.Parallel()
	want := parse(t, settingsName.ReplaceAllString(overlay(t, "prod"), "layers-settings-HASH"))
	text := release(t, "prod")
	for _, change := range [][2]string{{"minAvailable: 1", "minAvailable: 2"}, {"port: 7687", "port: 7688"}, {"LOG_LEVEL: \"info\"", "LOG_LEVEL: \"warn\""}} {
		changed := strings.Replace(text, change[0], change[1], 1)
		require.NotEqual(t, text, changed, change)
		require.NotEqual(t, want, released(t, changed), change)
	}
}
