//go:build monitoring

package live

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/monitoring"
	"github.com/layers-pub/layers-appview/test/rig"
)

// prometheus is a real one with the rules, which are looked at more often here and are
// otherwise as they are: an alert waits as long as it does anywhere.
type prometheus struct{ base string }

func startPrometheus(t *testing.T, api, indexer string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	raw, err := os.ReadFile(filepath.Join(root, "k8s/monitoring/rules.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(raw), "interval: 30s")
	rules := strings.ReplaceAll(string(raw), "interval: 30s", "interval: 2s")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules), 0o600))
	config := fmt.Sprintf(`
global: {scrape_interval: 2s, evaluation_interval: 2s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: layers-api
    static_configs: [{targets: [%q]}]
  - job_name: layers-indexer
    static_configs: [{targets: [%q]}]
`, api, indexer)
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	address := rig.FreeAddress(t)
	start(t, program("PROMETHEUS", "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage")
	p := &prometheus{base: "http://" + address}
	rig.Eventually(t, "Prometheus", func() (bool, string) {
		res, err := http.Get(p.base + "/-/ready")
		if err != nil {
			return false, err.Error()
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	return p
}

// get decodes what Prometheus answers.
func (p *prometheus) get(t *testing.T, path string, params url.Values, into any) {
	t.Helper()
	res, err := http.Get(p.base + path + "?" + params.Encode())
	require.NoError(t, err)
	defer res.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&body))
	require.Equal(t, "success", body.Status, "%s %s: %s", path, params, body.Error)
	require.NoError(t, json.Unmarshal(body.Data, into))
}

// sample is the value of a series.
type sample struct {
	Metric map[string]string
	Value  [2]any // when, and what as text
}

func (p *prometheus) samples(t *testing.T, expression string) []sample {
	t.Helper()
	var data struct{ Result []sample }
	p.get(t, "/api/v1/query", url.Values{"query": {expression}}, &data)
	return data.Result
}

// ask gives the series of an expression.
func (p *prometheus) ask(t *testing.T, expression string) (series []map[string]string) {
	t.Helper()
	for _, s := range p.samples(t, expression) {
		series = append(series, s.Metric)
	}
	return series
}

// value is that of an expression that has one.
func (p *prometheus) value(t *testing.T, expression string) float64 {
	t.Helper()
	all := p.samples(t, expression)
	require.Len(t, all, 1, expression)
	number, err := strconv.ParseFloat(fmt.Sprint(all[0].Value[1]), 64)
	require.NoError(t, err, expression)
	return number
}

// loaded requires that every rule is there and can be worked out.
func (p *prometheus) loaded(t *testing.T) {
	t.Helper()
	want, err := monitoring.Rules(root)
	require.NoError(t, err)
	rig.Eventually(t, "all rules to be worked out", func() (bool, string) {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		p.get(t, "/api/v1/rules", nil, &data)
		sound, others := 0, ""
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "ok" {
					sound++
				} else {
					others += fmt.Sprintf("; %s is %s: %s", rule.Name, rule.Health, rule.LastError)
				}
			}
		}
		return sound == len(want) && others == "", fmt.Sprintf("%d of %d%s", sound, len(want), others)
	})
	t.Logf("%d rules are loaded", len(want))
}

func (p *prometheus) eventually(t *testing.T, what, expression string, alive ...*rig.Process) {
	t.Helper()
	rig.Eventually(t, what, func() (bool, string) {
		time.Sleep(time.Second)
		return len(p.ask(t, expression)) > 0, expression
	}, alive...)
}
