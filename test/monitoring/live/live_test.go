//go:build monitoring

// Package live runs the programs under the eyes of a real Prometheus and a real
// OpenTelemetry Collector: `make try-monitoring`. It is apart from the other tests, as it
// wants those two programs.
package live

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
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
	running.Go(func() { follow(generating, t, base) })
	defer running.Wait()
	defer stop()

	p.loaded(t)
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

	p.eventually(t, "a follower of the index", `sum(layers_events_followers{transport="sse"}) == 1 and sum(layers_events_sent_total) > 0`, indexer, api)

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
	silent = nil
	for _, q := range queries {
		if len(p.ask(t, q.Expr)) == 0 {
			silent = append(silent, q.Panel+": "+q.Expr)
		}
	}
	t.Logf("%d of %d queries of the dashboards have data; nothing to show have\n%s", len(queries)-len(silent), len(queries), strings.Join(silent, "\n"))

	exported(t, p)
	stall(t, p, wire, indexer, api)
}

// Of the alert that the stall is to set off.
const (
	stalled       = `ALERTS{alertname="LayersFirehoseStalled"}`
	stalledWaits  = `ALERTS{alertname="LayersFirehoseStalled", alertstate="pending"}`
	stalledFires  = `ALERTS{alertname="LayersFirehoseStalled", alertstate="firing"}`
	frames        = `sum(layers_firehose_frames_total)`
	stallPatience = 15 * time.Minute // the alert's own seven minutes, and what a busy machine needs
)

// stall keeps the stream back until the alert for that has fired, and lets it go on.
func stall(t *testing.T, p *prometheus, wire *rig.Proxy, alive ...*rig.Process) {
	require.Empty(t, p.ask(t, stalled))
	wire.Hold(rig.FromStore) // the socket lives, the network goes on, and nothing comes
	began := time.Now()
	since := func() time.Duration { return time.Since(began).Round(time.Second) }
	t.Logf("the stream is kept back at %s", began.UTC().Format(time.TimeOnly))
	time.Sleep(10 * time.Second) // frames on their way, and some scrapes
	before := p.value(t, frames)
	for pending := false; len(p.ask(t, stalledFires)) == 0; time.Sleep(time.Second) {
		if !pending && len(p.ask(t, stalledWaits)) > 0 {
			pending = true
			t.Logf("LayersFirehoseStalled is pending after %s", since())
		}
		for _, process := range alive {
			require.True(t, process.Alive(), process.Name)
		}
		require.Less(t, time.Since(began), stallPatience, "the alert has not fired")
	}
	t.Logf("LayersFirehoseStalled fires after %s, when the last frame is %.0f s old", since(), p.value(t, "layers:firehose_silence:seconds"))
	require.NotEmpty(t, p.ask(t, fmt.Sprintf("count_over_time(%s[%s])", stalledWaits, stallPatience)), "it was never pending")
	require.Equal(t, before, p.value(t, frames), "frames that came meanwhile")
	require.Positive(t, wire.Held.Load())
	wire.Restore()
	began = time.Now()
	p.eventually(t, "the alert to end", `absent(`+stalledFires+`)`, alive...)
	p.eventually(t, "frames to come", fmt.Sprintf("%s > %.0f", frames, before), alive...)
	t.Logf("LayersFirehoseStalled has ended %s after the stream was let go on", since())
}

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

// follow is a client that follows the index until ctx ends. As a browser does, it
// connects again when it is turned away or loses the connection.
func follow(ctx context.Context, t *testing.T, base string) {
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/events", nil)
		if err != nil {
			t.Errorf("asking for events: %v", err)
			return
		}
		req.Header.Set("Accept", "text/event-stream")
		began := time.Now()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Logf("no events after %s: %v", time.Since(began).Round(time.Millisecond), err)
			continue
		}
		read, err := io.Copy(io.Discard, res.Body)
		t.Logf("events: %s, %d bytes within %s, then %v", res.Status, read, time.Since(began).Round(time.Millisecond), err)
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
