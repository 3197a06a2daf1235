package discovery

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// page is an answer, as far as any question reads it.
type page struct {
	Cursor               string
	Degraded, Incomplete bool
	Hits                 []struct{ URI string }
	Facets               map[string][]struct {
		Value string
		Count int
	}
	References []struct{ Source, Path string }
	Records    []struct {
		URI        string
		Expression *struct{ URI string }
	}
	Annotations []struct{ Layer, Label string }
	Neighbors   []struct{ Node node }
	Nodes       []node
	Edges       []struct{ From, To string }
	Found       bool
	Hops        int
	Labels      []counts
	ByKind      []counts
}

// counts are figures of the statistics.
type counts struct {
	Label, Kind, Subkind               string
	Annotations, Layers                int
	Bytes, CoveredBytes, CoveredTokens int
}

type node struct {
	Node  string
	Depth int
}

// What questions read of a page.

func hitsRead(p page) (lines []string) {
	for _, h := range p.Hits {
		lines = append(lines, h.URI)
	}
	return lines
}

func referencesRead(p page) (lines []string) {
	for _, r := range p.References {
		lines = append(lines, r.Source+" "+r.Path)
	}
	return lines
}

func recordsRead(p page) (lines []string) {
	for _, r := range p.Records {
		lines = append(lines, r.URI)
	}
	return lines
}

func membersRead(p page) (lines []string) {
	for _, r := range p.Records {
		if r.Expression != nil {
			lines = append(lines, r.Expression.URI)
		}
	}
	return lines
}

func annotationsRead(p page) (lines []string) {
	for _, a := range p.Annotations {
		lines = append(lines, a.Layer+" "+a.Label)
	}
	return lines
}

// neighborsRead has each neighbour once, whatever the number of edges to it.
func neighborsRead(p page) (lines []string) {
	for _, n := range p.Neighbors {
		lines = append(lines, n.Node.Node)
	}
	return distinct(lines)
}

func nodesRead(p page) (lines []string) {
	for _, n := range p.Nodes {
		lines = append(lines, fmt.Sprintf("%s %d", n.Node, n.Depth))
	}
	return lines
}

func pathRead(p page) []string {
	if !p.Found || len(p.Nodes) != p.Hops+1 || len(p.Edges) != p.Hops {
		return nil
	}
	return []string{fmt.Sprintf("%d hops from %s to %s", p.Hops, p.Nodes[0].Node, p.Nodes[p.Hops].Node)}
}

func labelsRead(p page) (lines []string) {
	for _, l := range p.Labels {
		lines = append(lines, fmt.Sprintf("%s of %s/%s: %d in %d", l.Label, l.Kind, l.Subkind, l.Annotations, l.Layers))
	}
	return lines
}

func coverageRead(p page) (lines []string) {
	for _, c := range p.ByKind {
		if c.Kind == "span" {
			lines = append(lines, fmt.Sprintf("%s: %d annotations cover %d of %d bytes", c.Subkind, c.Annotations, c.CoveredBytes, c.Bytes))
		}
	}
	return lines
}

// facetRead reads the counts of the first page; the others have none.
func facetRead(name string) func(page) []string {
	return func(p page) (lines []string) {
		for _, c := range p.Facets[name] {
			lines = append(lines, fmt.Sprintf("%s=%d", c.Value, c.Count))
		}
		return lines
	}
}

// refused is an answer other than 200.
type refused struct {
	status int
	body   string
	after  string // the header Retry-After
}

func (r *refused) Error() string { return fmt.Sprintf("%d: %s", r.status, r.body) }

// client asks one API process.
type client struct {
	base     string
	http     *http.Client
	fallback bool                // PostgreSQL may answer in place of another store
	took     func(time.Duration) // is told how long each page took; may be nil
}

func newClient(base string) *client {
	return &client{base: base, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
}

func (c *client) page(path string, params url.Values) (p page, err error) {
	if c.took != nil {
		began := time.Now()
		defer func() { c.took(time.Since(began)) }()
	}
	response, err := c.http.Get(c.base + "/api/v1" + path + "?" + params.Encode())
	if err != nil {
		return p, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return p, err
	}
	if response.StatusCode != http.StatusOK {
		return p, &refused{response.StatusCode, string(body), response.Header.Get("Retry-After")}
	}
	return p, json.Unmarshal(body, &p)
}

// ask reads all pages of an answer.
func (c *client) ask(q *question) (lines []string, degraded bool, err error) {
	params := maps.Clone(q.params)
	if params == nil {
		params = url.Values{}
	}
	for {
		p, err := c.page(q.path, params)
		if err != nil {
			return nil, false, err
		}
		lines, degraded = append(lines, q.read(p)...), degraded || p.Degraded
		if p.Cursor == "" {
			slices.Sort(lines)
			return lines, degraded, nil
		}
		params.Set("cursor", p.Cursor)
	}
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// ready is what /ready says.
type ready struct {
	Status                        string
	Failing, Degraded, Incomplete map[string]string
}

// readiness requires that a process is ready, but for what has to answer and was slow to:
// on a machine that does much else PostgreSQL may take longer than its two seconds.
func readiness(t *testing.T, base string) (status int, body ready) {
	t.Helper()
	response, err := http.Get(base + "/ready")
	require.NoError(t, err)
	defer response.Body.Close()
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	for name, why := range body.Failing {
		require.Equal(t, "no answer in time", why, name)
	}
	require.Equal(t, len(body.Failing) == 0, response.StatusCode == http.StatusOK, "%v", body)
	return response.StatusCode, body
}
