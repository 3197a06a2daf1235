// Package search keeps the Elasticsearch projection: one index for each
// searchable collection, with a document for each record. It owns the index
// settings, the fields that every document carries, and the versioned writes.
//
// An index is named <prefix>-<collection>-<hash of its mapping> and queries reach
// it through the alias <prefix>-<collection>. A changed mapping gives a new index
// beside the old one, which goes on answering until [Client.Rebuilt] is called.
package search

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// DefaultPrefix begins the names of all indexes and aliases.
const DefaultPrefix = "layers"

const (
	dialTimeout = 10 * time.Second
	// answerTimeout ends a request that the server took but never answered, for
	// callers whose context has no deadline. A bulk of 5 MB takes seconds at most, a
	// change of indexes masterTimeout and two times 30 s for what it waits for then.
	answerTimeout = 3 * time.Minute
	// masterTimeout is for how long a change of indexes may wait for those before it,
	// of which a busy cluster has many. The server's own default is 30 s.
	masterTimeout = 100 * time.Second
	idlePerHost   = 16
)

// Config says where Elasticsearch is and how indexes are laid out.
type Config struct {
	URLs     []string       // of the nodes; http or https, may carry user:password
	APIKey   string         // base64 form; empty where the cluster asks for none
	Roots    *x509.CertPool // whose certificates the nodes must have; nil for the system's
	Prefix   string         // of index names; empty for [DefaultPrefix]
	Replicas int            // of each index
}

// Client writes and reads the projection. It is safe for concurrent use.
type Client struct {
	transport *elastictransport.Client
	prefix    string
	replicas  int
	fixed     bool // writes one generation, see [Client.Beside]

	mu      sync.RWMutex
	indexes map[syntax.NSID]index // filled by Ensure
}

// Open prepares a client; it does not connect. Errors are of the configuration.
func Open(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("elasticsearch: no URL")
	}
	urls := make([]*url.URL, 0, len(cfg.URLs))
	for _, raw := range cfg.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("elasticsearch: %q is not an http or https URL", redact(raw))
		}
		urls = append(urls, u)
	}
	prefix := cfg.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	// Only the transport is used, not the client around it: that one refuses
	// servers by a product header, and links the whole typed API.
	transport, err := elastictransport.New(elastictransport.Config{ //nolint:staticcheck // what replaces it takes the same settings one by one
		URLs:   urls,
		APIKey: cfg.APIKey,
		// With one node a retry is the caller's to time; with several the next is tried at once.
		DisableRetry: len(urls) == 1,
		MaxRetries:   len(urls) - 1,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: answerTimeout,
			MaxIdleConnsPerHost:   idlePerHost,
			IdleConnTimeout:       time.Minute,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("elasticsearch: set up transport: %w", err)
	}
	return &Client{transport: transport, prefix: prefix, replicas: cfg.Replicas, indexes: map[syntax.NSID]index{}}, nil
}

// Close releases idle connections.
func (c *Client) Close(ctx context.Context) error {
	if err := c.transport.Close(ctx); err != nil {
		return fmt.Errorf("elasticsearch: close: %w", err)
	}
	return nil
}

// Ping asks whether the cluster answers, whatever its health.
func (c *Client) Ping(ctx context.Context) error {
	// The root path would be the natural question, but not every build serves it.
	if err := c.do(ctx, esapi.ClusterHealthRequest{FilterPath: []string{"status"}}, nil); err != nil {
		return fmt.Errorf("ping elasticsearch: %w", err)
	}
	return nil
}

// do sends one request and decodes its answer into out, which may be nil. An
// answer outside 2xx is a *statusError.
func (c *Client) do(ctx context.Context, req esapi.Request, out any) error {
	ctx, call := operationOf(req).Start(ctx)
	err := c.exchange(ctx, req, out)
	call.End(err)
	return err
}

func (c *Client) exchange(ctx context.Context, req esapi.Request, out any) error {
	res, err := req.Do(ctx, c.transport)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.IsError() {
		return newStatusError(res)
	}
	switch out := out.(type) {
	case nil:
	case *found:
		err = out.readFrom(res.Body)
	default:
		err = json.NewDecoder(res.Body).Decode(out)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body) // so that the connection can be used again
	}
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// redact hides a URL's password in an error message.
func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return "(unparsable)"
}
