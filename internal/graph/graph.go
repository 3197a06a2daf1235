// Package graph keeps the Neo4j projection: a node for each record, a node for
// each thing outside that records name, and the edges between them. It owns the
// graph's shape, its constraints, and the versioned writes.
//
// Nodes are (:Record {key, uri, did, collection, rkey, _version}) with further
// labels and properties of their own, (:Knowledge {key, source, identifier, _identifier})
// for entries of knowledge bases, and (:External {key, uri}). A record that is
// referred to but not there, or no longer, is a :Record with _dangling = true.
//
// An edge belongs to the record that states it. That is the record it starts
// from, unless the edge's _owner has the key of another. Properties whose names begin
// with an underscore are this package's own.
package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/neo4j/neo4j-go-driver/v5/neo4j"
	"github.com/neo4j/neo4j-go-driver/v5/neo4j/config"
	"golang.org/x/sync/semaphore"
)

const (
	connectTimeout = 5 * time.Second
	maxConnections = 16
)

// Config says where Neo4j is.
type Config struct {
	URL      string // bolt://, neo4j:// and their +s and +ssc forms
	User     string // empty for a server without authentication
	Password string
	Database string // empty for the server's default
	// Space keeps apart graphs that share a database, as tests do: it goes before
	// every node's key. Empty in production.
	Space string
	// Roots are whose certificates the servers must have, with a URL of +s; nil for the system's.
	Roots *x509.CertPool
}

// Client writes and reads the projection. It is safe for concurrent use.
type Client struct {
	driver   neo4j.DriverWithContext
	database string
	name     string // Config.Space
	space    string // before every key; empty or "~name/" in the first generation, else "~name.generation/"
	fixed    bool   // to this generation, see [Client.Beside]

	// writing admits one write transaction at a time: a steady 5,000 records/s, where
	// two that wait for each other's locks on shared nodes vary from 1,000 to 6,500.
	writing *semaphore.Weighted
}

var spacePattern = regexp.MustCompile(`^[A-Za-z0-9-]{0,64}$`)

// Open prepares a client; it does not connect. Errors are of the configuration.
func Open(cfg Config) (*Client, error) {
	if !spacePattern.MatchString(cfg.Space) {
		return nil, fmt.Errorf("neo4j: space %q: use at most 64 letters, digits and hyphens", cfg.Space)
	}
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" {
		return nil, errors.New("neo4j: what is given is not a bolt or neo4j URL") // which may hold a password
	}
	auth := neo4j.NoAuth()
	if cfg.User != "" {
		auth = neo4j.BasicAuth(cfg.User, cfg.Password, "")
	}
	driver, err := neo4j.NewDriverWithContext(cfg.URL, auth, func(c *config.Config) {
		c.SocketConnectTimeout = connectTimeout
		c.TlsConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots}
		c.MaxConnectionPoolSize = maxConnections
	})
	if err != nil {
		return nil, fmt.Errorf("neo4j: %w", err)
	}
	c := &Client{driver: driver, database: cfg.Database, name: cfg.Space, writing: semaphore.NewWeighted(1)}
	c.space = c.spaceOf("")
	return c, nil
}

// Close closes all connections.
func (c *Client) Close(ctx context.Context) error {
	if err := c.driver.Close(ctx); err != nil {
		return fmt.Errorf("neo4j: close: %w", err)
	}
	return nil
}

// Ping asks whether the database answers.
func (c *Client) Ping(ctx context.Context) error {
	if _, err := c.query(ctx, neo4j.AccessModeRead, "RETURN 1", nil); err != nil {
		return fmt.Errorf("ping neo4j: %w", err)
	}
	return nil
}

// query runs one statement in a transaction of its own and returns all its rows.
func (c *Client) query(ctx context.Context, mode neo4j.AccessMode, cypher string, params map[string]any) (rows []*neo4j.Record, err error) {
	ctx, call := queries.Start(ctx)
	defer func() { call.End(err) }()
	call.Text(cypher)
	session := c.driver.NewSession(ctx, neo4j.SessionConfig{DatabaseName: c.database, AccessMode: mode})
	defer session.Close(ctx)
	result, err := session.Run(ctx, cypher, params)
	if err != nil {
		return nil, err
	}
	return result.Collect(ctx)
}
