package monitoring

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write what follows from the rules and the metrics")

const root = "../.."

func declared(t *testing.T) map[string]Metric {
	t.Helper()
	metrics, err := Declared(root)
	require.NoError(t, err)
	require.Greater(t, len(metrics), 70)
	return metrics
}

func rules(t *testing.T) (all []Rule, recorded map[string]bool) {
	t.Helper()
	all, err := Rules(root)
	require.NoError(t, err)
	recorded = map[string]bool{}
	for _, r := range all {
		if r.Record != "" {
			recorded[r.Record] = true
		}
	}
	return all, recorded
}

func TestRulesAskForWhatIsExported(t *testing.T) {
	t.Parallel()
	metrics := declared(t)
	all, recorded := rules(t)
	for _, r := range all {
		require.NoError(t, Check(r.Expr, metrics, recorded), r.Alert+r.Record)
	}
}

func TestDashboardsAskForWhatIsExported(t *testing.T) {
	t.Parallel()
	metrics := declared(t)
	_, recorded := rules(t)
	queries, err := Queries(root)
	require.NoError(t, err)
	require.Greater(t, len(queries), 80)
	for _, q := range queries {
		require.NotEmpty(t, q.Expr, q.Panel)
		require.NoError(t, Check(q.Expr, metrics, recorded), "%s: %s", q.Dashboard, q.Panel)
	}
}

func TestCheckSeesWhatNobodyExports(t *testing.T) {
	t.Parallel()
	metrics := map[string]Metric{
		"layers_a_total": {Type: "counter", Labels: []string{"kind"}}, "layers_b_seconds": {Type: "histogram", Labels: []string{"route"}},
	}
	recorded := map[string]bool{"layers:a:rate5m": true}
	for expression, holds := range map[string]bool{
		`sum by (kind) (rate(layers_a_total{kind=~"x|y{", job="layers-api"}[5m])) or vector(0)`:                   true,
		`histogram_quantile(0.9, sum by (le, route) (rate(layers_b_seconds_bucket[5m]))) > 1e3 and on () up == 1`: true,
		`layers:a:rate5m / 14.4 > 0`:            true,
		`rate(layers_c_total[5m])`:              false,
		`rate(layers_b_seconds[5m])`:            false,
		`rate(layers_a_total_bucket[5m])`:       false,
		`layers_a_total{typ="x"}`:               false,
		`sum by (typ) (layers_a_total)`:         false,
		`layers:b:rate5m`:                       false,
		`sum(layers_a_total) + sum(node_load1)`: false,
	} {
		err := Check(expression, metrics, recorded)
		require.Equal(t, holds, err == nil, "%s: %v", expression, err)
	}
}

func TestEveryAlertSaysWhatItIs(t *testing.T) {
	t.Parallel()
	all, _ := rules(t)
	for _, r := range all {
		if r.Alert == "" {
			continue
		}
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Labels["component"], r.Alert)
		require.NotEmpty(t, r.For, r.Alert)
		for _, annotation := range []string{"summary", "description"} {
			require.NotEmpty(t, r.Annotations[annotation], r.Alert)
		}
		require.True(t, strings.HasSuffix(r.Annotations["runbook_url"], "/docs/operations/runbooks/"+r.Alert+".md"), r.Alert)
	}
}

// TestEveryAlertHasItsRunbook compares in both directions.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "docs/operations/runbooks/Layers*.md"))
	require.NoError(t, err)
	var books, alerts []string
	for _, file := range files {
		books = append(books, strings.TrimSuffix(filepath.Base(file), ".md"))
	}
	all, _ := rules(t)
	for _, r := range all {
		if r.Alert != "" {
			alerts = append(alerts, r.Alert)
		}
	}
	require.ElementsMatch(t, alerts, books)
}

// TestEveryAlertIsTested looks for a test in which it fires, and for one in which it
// does not; promtool runs them in make check-deploy.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, name := range []string{"rules_test.yaml", "rules_slow_test.yaml"} {
		raw, err := os.ReadFile(filepath.Join(root, "k8s/monitoring", name))
		require.NoError(t, err)
		var file struct {
			Tests []struct {
				Asks []struct {
					Expr    string
					Samples []struct{ Value float64 } `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		require.NoError(t, yaml.Unmarshal(raw, &file))
		for _, test := range file.Tests {
			for _, ask := range test.Asks {
				_, alert, found := strings.Cut(ask.Expr, `alertname="`)
				require.True(t, found, ask.Expr)
				alert, _, _ = strings.Cut(alert, `"`)
				if len(ask.Samples) > 0 {
					fires[alert] = true
				} else {
					silent[alert] = true
				}
			}
		}
	}
	all, _ := rules(t)
	for _, r := range all {
		if r.Alert != "" {
			require.True(t, fires[r.Alert], "no test has %s fire", r.Alert)
			require.True(t, silent[r.Alert], "no test has %s not fire", r.Alert)
		}
	}
}

// TestTheOperatorsRulesAreTheSame compares the PrometheusRule with the one source.
func TestTheOperatorsRulesAreTheSame(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(root, "k8s/monitoring/rules.yaml"))
	require.NoError(t, err)
	_, groups, found := strings.Cut(string(raw), "\ngroups:\n")
	require.True(t, found)
	var made strings.Builder
	made.WriteString("# Made from rules.yaml by `go test ./test/monitoring -update`: change it there.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: layers\nspec:\n  groups:\n")
	for line := range strings.Lines(groups) {
		if strings.TrimSpace(line) != "" {
			line = "  " + line
		}
		made.WriteString(line)
	}
	same(t, "k8s/monitoring/prometheusrule.yaml", made.String())
}

const (
	tableBegins = "<!-- metrics: made by `go test ./test/monitoring -update` -->\n"
	tableEnds   = "<!-- end of metrics -->\n"
)

// TestTheTableHasEveryMetric compares the table in the documentation with the source.
func TestTheTableHasEveryMetric(t *testing.T) {
	t.Parallel()
	metrics := declared(t)
	var table strings.Builder
	table.WriteString("| metric | type | labels | what it says | from |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		m := metrics[name]
		require.NotEmpty(t, m.Help, name)
		labels := "–"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | `%s` |\n", name, m.Type, labels, m.Help, m.Package)
	}
	const file = "docs/operations/monitoring.md"
	raw, err := os.ReadFile(filepath.Join(root, file))
	require.NoError(t, err)
	before, rest, begins := strings.Cut(string(raw), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	require.True(t, begins && ends)
	same(t, file, before+tableBegins+table.String()+tableEnds+after)
}

// same compares a file with what it should hold, or writes that.
func same(t *testing.T, file, want string) {
	t.Helper()
	path := filepath.Join(root, file)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644)) //nolint:gosec // like the rest of the work tree
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "%s: run `go test ./test/monitoring -update`", file)
}
