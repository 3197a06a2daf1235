//go:build monitoring

package live

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

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
