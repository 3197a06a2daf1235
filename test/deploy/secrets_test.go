//go:build deploy

package deploy

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// secrets are the settings that may be nowhere but in files.
var secrets = []string{"DATABASE_URL", "DATABASE_REPLICA_URL", "REDIS_URL", "ELASTICSEARCH_API_KEY", "NEO4J_PASSWORD", "LAYERS_ADMIN_TOKEN"}

// No value of a secret finds a way into what the chart renders: it takes names alone.
func TestTheChartRefusesSecrets(t *testing.T) {
	t.Parallel()
	canary := "canary" + rand.Text()
	sets := []string{
		"settings.ELASTICSEARCH_URL=https://elastic:" + canary + "@elasticsearch:9200",
		"settings.LAYERS_RELAY_URL=wss://user:" + canary + "@relay.example",
		"secrets.api=postgres://layers:" + canary + "@postgres/layers",
		"secrets.databaseUrl=" + canary,
		"api.env.DATABASE_URL=" + canary,
		"externalSecrets.vault.token=" + canary,
		"secretValues.neo4j=" + canary,
	}
	for _, secret := range secrets {
		sets = append(sets, "settings."+secret+"="+canary, "settings."+strings.ToLower(secret)+"="+canary)
	}
	for _, set := range sets {
		out, err := sh(`"$helm" template layers ` + chart + ` --set-string '` + set + `'`)
		require.ErrorContains(t, err, "values don't meet the specifications of the schema", set)
		require.NotContains(t, out, canary)
	}
}

var (
	password = regexp.MustCompile(`://[^/@\s"]*:[^/@\s"]+@`)
	key      = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)
	inline   = regexp.MustCompile(`(?m)^\s*(password|bot_token|token|routing_key|service_key|api_key|api_url|auth_password|credentials):`) // in place of its …_file
)

// notSecret are the Secrets that are rendered with data: what the operator of Prometheus
// reads its Alertmanager's configuration from, which names files with secrets alone.
var notSecret = map[string]string{"Secret/monitoring/layers-alertmanager": "../../k8s/monitoring/alertmanager-config.yaml"}

// requireNoSecret refuses a Secret with data, unless that is a file of this tree in
// which no secret stands.
func requireNoSecret(t *testing.T, name string, o map[string]any) {
	t.Helper()
	require.Nil(t, o["stringData"], name)
	file, known := notSecret[name]
	if !known {
		require.Nil(t, o["data"], name)
		return
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotRegexp(t, password, string(text), file)
	require.NotRegexp(t, key, string(text), file)
	require.NotRegexp(t, inline, string(text), file)
	data, _ := o["data"].(map[string]any)
	require.Len(t, data, 1, name)
	for _, encoded := range data {
		decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(fmt.Sprint(encoded)), ""))
		require.NoError(t, err, name)
		require.Equal(t, string(text), string(decoded), name)
	}
}

// Nothing that is rendered has a secret in it: no Secret with data, no variable that
// has one, no address with a password.
func TestNothingRenderedHasASecret(t *testing.T) {
	t.Parallel()
	all, err := built()
	require.NoError(t, err)
	rendered := maps.Clone(all)
	for name := range environments {
		rendered["chart for "+name] = release(t, name)
	}
	for from, text := range rendered {
		require.NotRegexp(t, password, text, from)
		require.NotRegexp(t, key, text, from)
		objects := parse(t, text)
		for name, o := range objects {
			if o["kind"] == "Secret" {
				requireNoSecret(t, name, o)
			}
		}
		for name, spec := range pods(objects) {
			for _, c := range containers(spec) {
				for _, secret := range secrets {
					require.NotContains(t, environment(objects, c), secret, "%s: %s", from, name)
				}
			}
		}
	}
}
