package checkup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// events begins to follow the index, and is content with the first word.
func (c *checkup) events(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/api/v1/events", nil)
	if err != nil {
		return "", err
	}
	response, err := c.Client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotImplemented {
		return "no log of events is kept", nil
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET /api/v1/events: %s", response.Status)
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if cursor, ok := strings.CutPrefix(lines.Text(), "id:"); ok {
			return "at " + strings.TrimSpace(cursor), nil
		}
	}
	return "", errors.New("the stream of events tells no cursor")
}

// Metrics that tell how the stream goes.
const (
	metricConnected = "layers_firehose_connected"
	metricSeq       = "layers_firehose_cursor_seq"
	metricLag       = "layers_firehose_cursor_lag_seconds"
	metricLast      = "layers_firehose_last_frame_timestamp_seconds"
)

// stream looks at the indexer twice: its cursor has moved, or there was nothing for it to
// move for.
func (c *checkup) stream(ctx context.Context) (string, error) {
	before, err := c.metrics(ctx)
	if err != nil {
		return "", err
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(c.Pause):
	}
	after, err := c.metrics(ctx)
	if err != nil {
		return "", err
	}
	lag := time.Duration(after[metricLag] * float64(time.Second)).Round(time.Millisecond)
	switch {
	case after[metricConnected] < 1:
		return "", errors.New("the indexer is connected to no host")
	case lag > c.MaxLag:
		return "", fmt.Errorf("what was applied last was %s old, more than %s", lag, c.MaxLag)
	case after[metricSeq] < before[metricSeq]:
		return "", fmt.Errorf("the cursor went back, from %.0f to %.0f", before[metricSeq], after[metricSeq])
	case after[metricSeq] == before[metricSeq] && after[metricLast] != before[metricLast]:
		return "", fmt.Errorf("frames come, and the cursor stays at %.0f", after[metricSeq])
	case after[metricSeq] == before[metricSeq]:
		return fmt.Sprintf("no frame came within %s; the cursor is at %.0f", c.Pause, after[metricSeq]), nil
	}
	return fmt.Sprintf("%.0f events within %s, %s behind", after[metricSeq]-before[metricSeq], c.Pause, lag), nil
}

// metrics sums up the samples of each name.
func (c *checkup) metrics(ctx context.Context) (map[string]float64, error) {
	a, err := c.fetch(ctx, c.Metrics)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %d", c.Metrics, a.status)
	}
	out := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(a.body)); lines.Scan(); {
		line := lines.Text()
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
		if err == nil && !strings.HasPrefix(line, "#") {
			out[name] += value
		}
	}
	if _, ok := out[metricSeq]; !ok {
		return nil, fmt.Errorf("GET %s: there is no %s: is it the indexer's?", c.Metrics, metricSeq)
	}
	return out, nil
}
