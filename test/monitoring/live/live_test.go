//go:build monitoring

// Package live runs the programs under the eyes of a real Prometheus and a real
// OpenTelemetry Collector: `make try-monitoring`. It is apart from the other tests, as it
// wants those two programs.
package live

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/monitoring"
	"github.com/layers-pub/layers-appview/test/rig"
)

const root = "../../.."

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// start runs a program until the end of the test, and shows its end if that failed.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "*.log")
	require.NoError(t, err)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start(), "%s: make check-monitoring says how to get it", name)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if raw, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("end of %s:\n%s", name, raw[max(0, len(raw)-3000):])
		}
	})
}

// program is where a tool is: by its variable, or by its name.
func program(variable, name string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	return name
}

// span is one as the collector hands it on.
type span struct {
	TraceID      string `json:"traceId"`
	SpanID       string `json:"spanId"`
	ParentSpanID string `json:"parentSpanId"`
	Name         string `json:"name"`
	service      string
}

// collector is a real one, with a receiver behind it that keeps what it hands on.
type collector struct {
	mu    sync.Mutex
	spans []span
}

func startCollector(t *testing.T) (*collector, string) {
	t.Helper()
	c := &collector{}
	behind := httptest.NewServer(http.HandlerFunc(c.take))
	t.Cleanup(behind.Close)
	address, health := rig.FreeAddress(t), rig.FreeAddress(t)
	file := filepath.Join(t.TempDir(), "collector.yaml")
	// The configuration in docker, with the exporter and addresses of this test.
	raw, err := os.ReadFile(filepath.Join(root, "docker/otel-collector-config.yaml"))
	require.NoError(t, err)
	text := string(raw)
	for from, to := range map[string]string{
		"0.0.0.0:4318": address, "0.0.0.0:4317": rig.FreeAddress(t), "0.0.0.0:13133": health,
		"logs: {level: warn}": "metrics: {level: none}", // which would want a port of its own
		"exporters: [otlp]":   "exporters: [otlphttp]",
		"\nexporters:\n":      "\nexporters:\n  otlphttp: {endpoint: " + behind.URL + ", encoding: json, compression: none}\n",
	} {
		require.Contains(t, text, from)
		text = strings.ReplaceAll(text, from, to)
	}
	text = regexp.MustCompile(`(?ms)^  otlp:\n    endpoint: \$.*?\n\n`).ReplaceAllString(text, "\n")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	start(t, program("OTELCOL", "otelcol"), "--config", file)
	rig.Eventually(t, "the collector", func() (bool, string) {
		res, err := http.Get("http://" + health)
		if err != nil {
			return false, err.Error()
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	return c, "http://" + address
}

func (c *collector) take(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ResourceSpans []struct {
			Resource struct {
				Attributes []struct {
					Key   string
					Value struct{ StringValue string }
				}
			}
			ScopeSpans []struct{ Spans []span }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range body.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.StringValue
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				s.service = service
				c.spans = append(c.spans, s)
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// whole finds a trace that has all of the names, and shows it as a tree.
func (c *collector) whole(names ...string) (tree string, spans int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	traces := map[string][]span{}
	for _, s := range c.spans {
		traces[s.TraceID] = append(traces[s.TraceID], s)
	}
	for _, trace := range traces {
		lacks := slices.ContainsFunc(names, func(name string) bool {
			return !slices.ContainsFunc(trace, func(s span) bool { return strings.HasPrefix(s.Name, name) })
		})
		if !lacks {
			return draw(trace, "", ""), len(c.spans)
		}
	}
	return "", len(c.spans)
}

func draw(trace []span, parent, indent string) (text string) {
	for _, s := range trace {
		if s.ParentSpanID == parent {
			text += fmt.Sprintf("%s%s [%s]\n", indent, s.Name, s.service) + draw(trace, s.SpanID, indent+"  ")
		}
	}
	return text
}

// prometheus is a real one with the rules, of which only the times are shortened.
type prometheus struct{ base string }

var waits = regexp.MustCompile(`(?m)^(\s+for: )\S+$`)

func startPrometheus(t *testing.T, api, indexer string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	raw, err := os.ReadFile(filepath.Join(root, "k8s/monitoring/rules.yaml"))
	require.NoError(t, err)
	rules := waits.ReplaceAllString(string(raw), "${1}5s")
	rules = strings.ReplaceAll(rules, "interval: 30s", "interval: 2s")
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

// ask gives the series of an expression.
func (p *prometheus) ask(t *testing.T, expression string) (series []map[string]string) {
	t.Helper()
	res, err := http.PostForm(p.base+"/api/v1/query", url.Values{"query": {expression}})
	require.NoError(t, err)
	defer res.Body.Close()
	var body struct {
		Status, Error string
		Data          struct {
			Result []struct{ Metric map[string]string }
		}
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&body))
	require.Equal(t, "success", body.Status, "%s: %s", expression, body.Error)
	for _, r := range body.Data.Result {
		series = append(series, r.Metric)
	}
	return series
}

func (p *prometheus) eventually(t *testing.T, what, expression string, alive ...*rig.Process) {
	t.Helper()
	rig.Eventually(t, what, func() (bool, string) {
		time.Sleep(time.Second)
		return len(p.ask(t, expression)) > 0, expression
	}, alive...)
}

// absent are metrics that have nothing to show where all is well, and those of programs
// that do not run here.
var absent = []string{
	"layers_firehose_reconnects_total", "layers_verification_failures_total", "layers_dead_letters", "layers_resync_failures_total", "layers_resync_done_total",
	"layers_backfill_eta_seconds", "layers_http_overload_refused_total", "layers_http_rate_limited_total", "layers_http_rate_uncounted_total", "layers_task_store_unreachable",
	"layers_task_queue_tasks", "layers:volume_used:ratio", "layers:filesystem_used:ratio", "ALERTS",
}

func TestSeenByPrometheusAndACollector(t *testing.T) {
	world, err := simulate.NewWorld(simulate.Config{Seed: 7, Now: time.Now})
	require.NoError(t, err)
	generator, err := simulate.NewGenerator(world, simulate.Script{Records: 1500, Edits: 10, Live: true})
	require.NoError(t, err)
	server := simulate.NewServer(world, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, server.Stop()) })

	spans, endpoint := startCollector(t)
	wire, relay := rig.Before(t, server.RelayURL())
	d := rig.Deploy(t, rig.OpenStores(t), rig.Upstream{Relay: relay, PLC: server.URL()},
		"OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_BSP_SCHEDULE_DELAY=500", "LAYERS_STATISTICS_INTERVAL=5s", "LAYERS_VERIFY_INTERVAL=5s")
	indexerMetrics, apiMetrics := rig.FreeAddress(t), rig.FreeAddress(t)
	indexer := d.Indexer("--metrics-listen", indexerMetrics)
	base, api := d.Replica(rig.FreeAddress(t), "LAYERS_METRICS_LISTEN="+apiMetrics)
	p := startPrometheus(t, apiMetrics, indexerMetrics)

	generating, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		for range 1500 {
			if _, err := generator.Step(); err != nil || generating.Err() != nil {
				return
			}
		}
		_ = generator.Run(generating, 20)
	})
	running.Go(func() { load(generating, base) })
	running.Go(func() { follow(generating, base) })
	defer running.Wait()
	defer stop()

	p.eventually(t, "a scrape of both programs", `count(up == 1) == 2`, indexer, api)
	rig.Eventually(t, "one trace from the socket to Elasticsearch", func() (bool, string) {
		time.Sleep(time.Second)
		tree, n := spans.whole("firehose batch", "socket", "verify", "transaction", "postgresql commit", "asynq publish search", "redis", "project search", "elasticsearch bulk")
		if tree != "" {
			t.Logf("a trace:\n%s", tree)
		}
		return tree != "", fmt.Sprintf("%d spans", n)
	}, indexer, api)
	rig.Eventually(t, "the trace of a request, down to a store", func() (bool, string) {
		time.Sleep(time.Second)
		tree, n := spans.whole("GET /api/v1/", "elasticsearch search")
		if tree != "" {
			t.Logf("a trace:\n%s", tree)
		}
		return tree != "", fmt.Sprintf("%d spans", n)
	}, indexer, api)
	p.eventually(t, "the statistics and a comparison", `layers_records > 0 and on () count(layers_projection_compared_timestamp_seconds) >= 1`, indexer, api)
	require.Empty(t, p.ask(t, `layers_projection_differences > 0`))

	queries, err := monitoring.Queries(root)
	require.NoError(t, err)
	var silent []string
	rig.Eventually(t, "data for the dashboards", func() (bool, string) {
		time.Sleep(time.Second)
		silent = nil
		for _, q := range queries {
			nothing := slices.ContainsFunc(absent, func(name string) bool { return strings.Contains(q.Expr, name) })
			if !nothing && len(p.ask(t, q.Expr)) == 0 {
				silent = append(silent, q.Panel+": "+q.Expr)
			}
		}
		return len(silent) == 0, strings.Join(silent, "\n")
	}, indexer, api)
	answered := 0
	for _, q := range queries {
		if len(p.ask(t, q.Expr)) > 0 {
			answered++
		}
	}
	t.Logf("%d of %d queries of the dashboards have data; the others are of %v", answered, len(queries), absent)

	exported(t, p)
	require.Empty(t, p.ask(t, `ALERTS{alertname="LayersFirehoseStalled"}`))
	wire.Hold(rig.FromStore) // the socket lives, the network goes on, and nothing comes
	began := time.Now()
	for len(p.ask(t, `ALERTS{alertname="LayersFirehoseStalled", alertstate="firing"}`)) == 0 {
		require.True(t, indexer.Alive() && api.Alive())
		require.Less(t, time.Since(began), stallPatience, "the alert has not fired")
		time.Sleep(2 * time.Second)
	}
	t.Logf("LayersFirehoseStalled fires after %s without a frame", time.Since(began).Round(time.Second))
	wire.Restore()
	p.eventually(t, "the alert to end", `absent(ALERTS{alertname="LayersFirehoseStalled", alertstate="firing"})`, indexer, api)
}

// stallPatience is the alert's own five minutes, and what a busy machine needs.
const stallPatience = 10 * time.Minute

// exported compares what is scraped with what is declared in the source.
func exported(t *testing.T, p *prometheus) {
	t.Helper()
	declared, err := monitoring.Declared(root)
	require.NoError(t, err)
	for _, series := range p.ask(t, `count by (__name__) ({__name__=~"layers_.+"})`) {
		name := series["__name__"]
		_, known := declared[name]
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			_, of := declared[strings.TrimSuffix(name, part)]
			known = known || of
		}
		require.True(t, known, "%s is exported, and nobody declares it", name)
	}
}

// follow is a client that follows the index, until ctx ends.
func follow(ctx context.Context, base string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/events", nil)
	if err != nil {
		return
	}
	req.Header.Set("Accept", "text/event-stream")
	if res, err := http.DefaultClient.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// load asks what clients ask, until ctx ends.
func load(ctx context.Context, base string) {
	for i := 0; ctx.Err() == nil; i++ {
		for _, path := range []string{
			fmt.Sprintf("/api/v1/search?q=a&limit=%d", 1+i%50), "/api/v1/corpora?limit=5", "/api/v1/expressions?limit=3",
			"/xrpc/pub.layers.corpus.getCorpus?uri=at://did:plc:none/pub.layers.corpus.corpus/none", "/nowhere",
		} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
			if err != nil {
				return
			}
			if res, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
