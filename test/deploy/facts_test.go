//go:build deploy

package deploy

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pods are the specs of pods among objects, by what they belong to.
func pods(objects map[string]object) map[string]object {
	out := map[string]object{}
	for key, o := range objects {
		for _, path := range [][]any{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
			if spec, ok := o.at(path...).(map[string]any); ok {
				out[key] = spec
			}
		}
	}
	return out
}

func containers(spec object) []object {
	var out []object
	for _, list := range []string{"containers", "initContainers"} {
		items, _ := spec[list].([]any)
		for _, item := range items {
			out = append(out, item.(map[string]any))
		}
	}
	return out
}

// environment is what a container is told: the settings, and its own variables.
func environment(objects map[string]object, container object) map[string]string {
	out := map[string]string{}
	from, _ := container["envFrom"].([]any)
	for _, source := range from {
		name := object(source.(map[string]any)).at("configMapRef", "name")
		for _, o := range objects {
			if o["kind"] == "ConfigMap" && o.at("metadata", "name") == name {
				for variable, value := range o["data"].(map[string]any) {
					out[variable] = value.(string)
				}
			}
		}
	}
	list, _ := container["env"].([]any)
	for _, item := range list {
		variable := item.(map[string]any)
		value, _ := variable["value"].(string)
		out[variable["name"].(string)] = value
	}
	return out
}

// bound tells whether a service account has a role, and so needs its token.
func bound(objects map[string]object, account any) bool {
	for _, o := range objects {
		subjects, _ := o.at("subjects").([]any)
		for _, subject := range subjects {
			s := object(subject.(map[string]any))
			if account != nil && s["kind"] == "ServiceAccount" && s["name"] == account {
				return true
			}
		}
	}
	return false
}

func TestProductionHasWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	objects := parse(t, overlay(t, "prod"))
	api, indexer := objects["Deployment/layers/layers-api"], objects["Deployment/layers/layers-indexer"]
	for _, fact := range []struct {
		of   object
		want any
		path []any
	}{
		{api, nil, []any{"spec", "replicas"}},
		{indexer, 1, []any{"spec", "replicas"}},
		{indexer, "Recreate", []any{"spec", "strategy", "type"}},
		{api, 0, []any{"spec", "strategy", "rollingUpdate", "maxUnavailable"}},
		{objects["PodDisruptionBudget/layers/layers-api"], 1, []any{"spec", "minAvailable"}},
	} {
		require.Equal(t, fact.want, fact.of.at(fact.path...), fact.path)
	}
	scaler := objects["HorizontalPodAutoscaler/layers/layers-api"]
	require.Equal(t, []any{2, 10}, []any{scaler.at("spec", "minReplicas"), scaler.at("spec", "maxReplicas")})
	for i, want := range []any{70, 80} { // processor, memory
		require.Equal(t, want, scaler.at("spec", "metrics", i, "resource", "target", "averageUtilization"))
	}
	for name, want := range map[string][4]string{"api": {"200m", "256Mi", "1000m", "1Gi"}, "indexer": {"500m", "512Mi", "2000m", "2Gi"}} {
		c := containers(pods(objects)["Deployment/layers/layers-"+name])[0]
		r := []any{c.at("resources", "requests", "cpu"), c.at("resources", "requests", "memory"), c.at("resources", "limits", "cpu"), c.at("resources", "limits", "memory")}
		require.Equal(t, []any{want[0], want[1], want[2], want[3]}, r)
		probe := func(kind, path string, delay, period int) {
			require.Equal(t, path, c.at(kind, "httpGet", "path"))
			require.Equal(t, []any{delay, period}, []any{c.at(kind, "initialDelaySeconds"), c.at(kind, "periodSeconds")})
		}
		probe("livenessProbe", "/health", 10, 15)
		probe("readinessProbe", "/ready", 5, 10)
		require.NotNil(t, c["startupProbe"])
		require.Equal(t, []any{3000, 9090}, []any{c.at("ports", 0, "containerPort"), c.at("ports", 1, "containerPort")})
	}
}

// Whatever is rendered, of whomever: pods are restricted, and end after their program.
func TestEveryPodIsRestrictedAndHasTimeToEnd(t *testing.T) {
	t.Parallel()
	all, err := built()
	require.NoError(t, err)
	seen := 0
	for folder, text := range all {
		objects := parse(t, text)
		for key, spec := range pods(objects) {
			seen++
			at := folder + ": " + key
			require.Equal(t, true, spec.at("securityContext", "runAsNonRoot"), at)
			require.Equal(t, "RuntimeDefault", spec.at("securityContext", "seccompProfile", "type"), at)
			if !bound(objects, spec["serviceAccountName"]) {
				require.Equal(t, false, spec["automountServiceAccountToken"], at)
			}
			for _, c := range containers(spec) {
				require.Equal(t, true, c.at("securityContext", "readOnlyRootFilesystem"), at)
				require.Equal(t, false, c.at("securityContext", "allowPrivilegeEscalation"), at)
				require.Equal(t, []any{"ALL"}, c.at("securityContext", "capabilities", "drop"), at)
				require.NotNil(t, c.at("resources", "limits", "memory"), at)
				env, stop := environment(objects, c), time.Duration(0)
				for _, variable := range []string{"LAYERS_DRAIN", "LAYERS_DRAIN_DELAY"} {
					if env[variable] != "" {
						d, err := time.ParseDuration(env[variable])
						require.NoError(t, err, at)
						stop += d
					}
				}
				if stop > 0 {
					grace, _ := spec["terminationGracePeriodSeconds"].(int)
					require.Greater(t, time.Duration(grace)*time.Second, stop, at)
				}
			}
		}
	}
	require.NotZero(t, seen)
}

// Only what is in front of the API reaches it, and only Prometheus the metrics.
func TestWhoMayReachWhom(t *testing.T) {
	t.Parallel()
	objects := parse(t, overlay(t, "prod"))
	reach := map[string][]string{}
	for _, program := range []string{"api", "indexer"} {
		policy := objects["NetworkPolicy/layers/layers-"+program]
		rules, _ := policy.at("spec", "ingress").([]any)
		for _, rule := range rules {
			r := object(rule.(map[string]any))
			from := r.at("from", 0, "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name").(string)
			reach[program] = append(reach[program], from+" "+r.at("ports", 0, "port").(string))
			require.Len(t, r["from"], 1)
			require.Len(t, r["ports"], 1)
		}
	}
	require.Equal(t, map[string][]string{"api": {"ingress-nginx http", "monitoring metrics"}, "indexer": {"monitoring metrics"}}, reach)
	deny := objects["NetworkPolicy/layers/layers-default-deny"]
	require.Equal(t, []any{map[string]any{}, []any{"Ingress", "Egress"}}, []any{deny.at("spec", "podSelector"), deny.at("spec", "policyTypes")})
	for key, o := range objects {
		if o["kind"] == "Ingress" {
			annotations := o.at("metadata", "annotations").(map[string]any)
			require.Subset(t, slices.Collect(maps.Keys(annotations)), []string{"nginx.ingress.kubernetes.io/limit-rps", "nginx.ingress.kubernetes.io/proxy-body-size"}, key)
		}
	}
}
