// Package checkup asks a deployment, from outside and as its clients do, whether it
// answers as it should: after a rollout, before a promotion, after a restore. It uses
// nothing but HTTP, and shares no code with what it judges.
package checkup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Config says what is asked, and of whom.
type Config struct {
	URL string // of the API, as clients reach it
	// Metrics is the URL of the indexer's metrics, which tell whether the stream moves;
	// that is not asked without it.
	Metrics string
	Records []syntax.ATURI // that have to be there, besides the newest ones
	MaxLag  time.Duration  // of the stream; 5 minutes if zero
	Pause   time.Duration  // between two looks at the stream; 10 seconds if zero
	// Degraded takes a service for well that does without optional stores.
	Degraded bool
	// Empty takes a service for well that has no records yet.
	Empty  bool
	Client *http.Client // http.DefaultClient if nil
}

// Finding is the outcome of one check.
type Finding struct {
	Check string
	Err   error  // nil: it is as it should be
	Note  string // what was seen
}

// String is the finding on one line.
func (f Finding) String() string {
	if f.Err != nil {
		return fmt.Sprintf("FAILED  %-12s %v", f.Check, f.Err)
	}
	return strings.TrimRight(fmt.Sprintf("ok      %-12s %s", f.Check, f.Note), " ")
}

// requestTime bounds each request, and mostBytes each answer.
const (
	requestTime = 15 * time.Second
	mostBytes   = 16 << 20
)

// Run makes all checks, and hands each outcome to report as soon as it is there. The error
// says how many failed.
func Run(ctx context.Context, cfg Config, report func(Finding)) error {
	if cfg.MaxLag == 0 {
		cfg.MaxLag = 5 * time.Minute
	}
	if cfg.Pause == 0 {
		cfg.Pause = 10 * time.Second
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	c := &checkup{Config: cfg}
	failed := 0
	checks := []check{
		{"health", c.health}, {"ready", c.ready}, {"identity", c.identity}, {"records", c.records},
		{"errors", c.refusals}, {"search", c.search}, {"limits", c.limits}, {"events", c.events},
	}
	if cfg.Metrics != "" {
		checks = append(checks, check{"stream", c.stream})
	}
	for _, check := range checks {
		note, err := check.do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
		}
		report(Finding{check.name, err, note})
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return nil
}

// check is one thing that is looked at: do tells what was seen.
type check struct {
	name string
	do   func(context.Context) (note string, err error)
}

type checkup struct{ Config }

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get asks for a path below the service's URL.
func (c *checkup) get(ctx context.Context, path string) (answer, error) {
	return c.fetch(ctx, c.URL+path)
}

func (c *checkup) fetch(ctx context.Context, address string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return a, err
	}
	response, err := c.Client.Do(request)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	a.status, a.header = response.StatusCode, response.Header
	a.body, err = io.ReadAll(io.LimitReader(response.Body, mostBytes))
	return a, err
}

// into asks for a path, requires status 200, and decodes the answer.
func (c *checkup) into(ctx context.Context, path string, value any) error {
	a, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", path, a.status, clip(a.body))
	}
	if err := json.Unmarshal(a.body, value); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func clip(body []byte) string { return strings.TrimSpace(string(body[:min(len(body), 200)])) }

func (c *checkup) health(ctx context.Context) (string, error) {
	var got struct {
		Status string `json:"status"`
	}
	err := c.into(ctx, "/health", &got)
	return got.Status, err
}

// ready also tells which optional stores are away.
func (c *checkup) ready(ctx context.Context) (string, error) {
	var got struct {
		Status   string            `json:"status"`
		Degraded map[string]string `json:"degraded"`
	}
	if err := c.into(ctx, "/ready", &got); err != nil {
		return "", err
	}
	if len(got.Degraded) > 0 {
		note := fmt.Sprintf("does without %v", got.Degraded)
		if !c.Degraded {
			return "", errors.New(note)
		}
		return note, nil
	}
	return got.Status, nil
}

// identity compares the did:web document with the address that was asked.
func (c *checkup) identity(ctx context.Context) (string, error) {
	var health struct {
		Version string `json:"version"`
	}
	if err := c.into(ctx, "/xrpc/_health", &health); err != nil {
		return "", err
	}
	var document struct {
		ID      string `json:"id"`
		Service []struct {
			ID       string `json:"id"`
			Endpoint string `json:"serviceEndpoint"`
		} `json:"service"`
	}
	if err := c.into(ctx, "/.well-known/did.json", &document); err != nil {
		return "", err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", err
	}
	if want := "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A"); document.ID != want {
		return "", fmt.Errorf("its DID is %s, should be %s (LAYERS_PUBLIC_URL)", document.ID, want)
	}
	for _, service := range document.Service {
		if strings.HasSuffix(service.ID, "#layers_appview") {
			return document.ID + ", version " + health.Version, nil
		}
	}
	return "", fmt.Errorf("%s names no service #layers_appview", document.ID)
}

// refusals asks for what is not there.
func (c *checkup) refusals(ctx context.Context) (string, error) {
	const missing = "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/pub.layers.corpus.corpus/3jzfcijpj2z2a"
	a, err := c.get(ctx, "/xrpc/pub.layers.corpus.getCorpus?uri="+url.QueryEscape(missing))
	if err != nil {
		return "", err
	}
	var got struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusBadRequest || got.Error != "RecordNotFound" {
		return "", fmt.Errorf("a record that is not there is answered %d %s, should be 400 RecordNotFound", a.status, clip(a.body))
	}
	if a.header.Get("X-Request-Id") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		return "", errors.New("an answer lacks X-Request-Id or X-Content-Type-Options")
	}
	return got.Error, nil
}

func (c *checkup) search(ctx context.Context) (string, error) {
	var got struct {
		Degraded   any `json:"degraded"`
		Incomplete any `json:"incomplete"`
	}
	if err := c.into(ctx, "/api/v1/search?q=layers&limit=1", &got); err != nil {
		return "", err
	}
	if (got.Degraded != nil || got.Incomplete != nil) && !c.Degraded {
		return "", errors.New("its answer says that it is degraded or incomplete")
	}
	return "", nil
}

// limits looks for the headers that tell clients how much they may ask.
func (c *checkup) limits(ctx context.Context) (string, error) {
	a, err := c.get(ctx, "/api/v1/search?q=layers&limit=1")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "RateLimit-Limit", "RateLimit-Remaining"} {
		if a.header.Get(name) == "" {
			return "", fmt.Errorf("an answer has no %s: nobody is counted (REDIS_URL, LAYERS_RATE_LIMITS)", name)
		}
	}
	return a.header.Get("X-RateLimit-Limit") + " a minute", nil
}
