package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/appview/cache"
	"github.com/layers-pub/layers-appview/appview/rest"
	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/fulltext"
	"github.com/layers-pub/layers-appview/internal/store/layout"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/telemetry"
	"github.com/layers-pub/layers-appview/internal/traversal"
)

// parts are what every role is put together from.
type parts struct {
	cfg     config
	logger  *slog.Logger
	catalog *catalog.Catalog
	pool    *pgxpool.Pool
	search  *search.Client // nil where none is configured
	graph   *graph.Client  // nil where none is configured
	// relations is the graph in PostgreSQL; nil where Neo4j is enough.
	relations *relations.Store
	cache     *cache.Cache // nil for a role that answers nobody
	quotas    *traffic.Quotas
	unwatch   func()                      // ends the metrics of pool
	traced    func(context.Context) error // sends the traces that are left
}

// openParts loads the catalog and connects to PostgreSQL and to the projections
// that are configured.
func openParts(ctx context.Context, cfg config, logger *slog.Logger, pool store.Config) (*parts, error) {
	p := &parts{cfg: cfg, logger: logger}
	var err error
	if p.catalog, err = loadCatalog(cfg); err != nil {
		return nil, err
	}
	if p.traced, err = telemetry.Export(ctx, strings.ReplaceAll(pool.Name, " ", "-"), version); err != nil {
		return nil, err
	}
	if p.pool, err = store.Open(ctx, pool); err != nil {
		return nil, err
	}
	p.unwatch = telemetry.Watch(telemetry.PostgreSQL, p.connections)
	if err := p.openProjections(); err != nil {
		p.close(ctx)
		return nil, err
	}
	return p, nil
}

func (p *parts) openProjections() (err error) {
	if url := p.cfg.Elasticsearch.URL; url != "" {
		p.search, err = search.Open(search.Config{URLs: []string{url}, APIKey: p.cfg.Elasticsearch.APIKey, Prefix: p.cfg.Elasticsearch.Prefix, Roots: p.cfg.Roots})
		if err != nil {
			return fmt.Errorf("preparing Elasticsearch: %w", err)
		}
	}
	if n := p.cfg.Neo4j; n.URL != "" {
		p.graph, err = graph.Open(graph.Config{URL: n.URL, User: n.User, Password: n.Password, Database: n.Database, Space: n.Space, Roots: p.cfg.Roots})
		if err != nil {
			return fmt.Errorf("preparing Neo4j: %w", err)
		}
	}
	if p.graph == nil || p.cfg.GraphFallback {
		p.relations = relations.New(p.pool)
	}
	return nil
}

func (p *parts) close(ctx context.Context) {
	var err error
	if p.cache != nil {
		err = p.cache.Close()
	}
	err = errors.Join(err, p.quotas.Close())
	if p.graph != nil {
		err = errors.Join(err, p.graph.Close(ctx))
	}
	if p.search != nil {
		err = errors.Join(err, p.search.Close(ctx))
	}
	p.unwatch()
	p.pool.Close()
	ending, cancel := context.WithTimeout(ctx, traceGrace)
	defer cancel()
	err = errors.Join(err, p.traced(ending))
	if err != nil {
		p.logger.WarnContext(ctx, "closing the stores failed", "error", err)
	}
}

// traceGrace is how long a collector has to take the last traces.
const traceGrace = 3 * time.Second

func (p *parts) connections() telemetry.Pool {
	s := p.pool.Stat()
	return telemetry.Pool{Used: int(s.AcquiredConns()), Idle: int(s.IdleConns()), Max: int(s.MaxConns())}
}

func loadCatalog(cfg config) (*catalog.Catalog, error) {
	var dirs []fs.FS
	for _, dir := range cfg.LexiconDirs {
		dirs = append(dirs, os.DirFS(dir))
	}
	c, err := catalog.Load(dirs...)
	if err != nil {
		return nil, fmt.Errorf("loading the lexicons: %w", err)
	}
	if err := c.Follow(cfg.Foreign...); err != nil {
		return nil, fmt.Errorf("following foreign collections: %w", err)
	}
	return c, nil
}

// targets are the projections that are configured.
func (p *parts) targets() []record.Target { return p.stores().Targets() }

// fullText tells whether PostgreSQL keeps what it searches by.
func (p *parts) fullText() bool { return p.search == nil || p.cfg.SearchFallback }

// documents is what PostgreSQL searches by; nil if it does not have to.
func (p *parts) documents() *fulltext.Documents {
	if !p.fullText() {
		return nil
	}
	return fulltext.NewDocuments(p.pool, p.searched())
}

// searches are what the API's search endpoints ask.
func (p *parts) searches() rest.Search {
	schema := p.searched()
	inPostgres := fulltext.NewSearcher(p.pool, schema)
	switch {
	case p.search == nil:
		return rest.Search{First: inPostgres, Schema: schema, From: record.FullText}
	case p.cfg.SearchFallback:
		return rest.Search{First: p.searcher(schema), Fallback: inPostgres, Schema: schema, From: record.Search}
	default:
		return rest.Search{First: p.searcher(schema), Schema: schema, From: record.Search}
	}
}

// sharedViews is how old what a search finds may be beside what an index shows: half of
// Elasticsearch's own interval.
const sharedViews = 500 * time.Millisecond

func (p *parts) searcher(schema *query.Schema) *search.Searcher {
	s := search.NewSearcher(p.search, schema, store.NewReader(p.pool))
	s.Share = sharedViews
	return s
}

// searched is what queries can ask for.
func (p *parts) searched() *query.Schema {
	var types []query.Type
	for _, collection := range p.catalog.Collections() {
		if t, ok := project.Searched(collection); ok {
			types = append(types, t)
		}
	}
	return query.NewSchema(types)
}

// routes say which of the configured projections follow each collection.
func (p *parts) routes() store.Routes {
	configured := map[record.Target]bool{}
	for _, target := range p.targets() {
		configured[target] = true
	}
	routes := store.Routes{}
	for _, collection := range p.catalog.Collections() {
		following := project.Targets(collection)
		if slices.Contains(following, record.Graph) {
			following = append(following, record.Relations)
		}
		for _, target := range following {
			if configured[target] {
				routes[collection.NSID] = append(routes[collection.NSID], target)
			}
			if target == record.Search && configured[record.FullText] { // the same documents elsewhere
				routes[collection.NSID] = append(routes[collection.NSID], record.FullText)
			}
		}
	}
	return routes
}

// migrate brings all stores to this program's schema.
func (p *parts) migrate(ctx context.Context) error {
	if err := store.Migrate(ctx, p.cfg.DatabaseURL, layout.Partitions(p.catalog), p.logger); err != nil {
		return fmt.Errorf("preparing PostgreSQL: %w", err)
	}
	return p.ensureProjections(ctx)
}

// ensureProjections makes what is missing in the projections that are configured, and
// removes what nothing would keep in step any more.
func (p *parts) ensureProjections(ctx context.Context) error {
	if !p.fullText() {
		if err := fulltext.NewDocuments(p.pool, p.searched()).Clear(ctx); err != nil {
			return fmt.Errorf("preparing PostgreSQL: %w", err)
		}
	}
	if p.search != nil {
		if _, err := p.ensureSearch(ctx); err != nil {
			return err
		}
	}
	if p.graph != nil {
		if err := p.graph.Ensure(ctx); err != nil {
			return fmt.Errorf("preparing Neo4j: %w", err)
		}
	}
	return nil
}

// ensureSearch makes the indexes that are missing, and returns the collections
// whose index has yet to be filled.
func (p *parts) ensureSearch(ctx context.Context) ([]syntax.NSID, error) {
	var mappings []search.Mapping
	for _, collection := range p.catalog.Collections() {
		if mapping, ok := project.Mapping(collection); ok {
			mappings = append(mappings, mapping)
		}
	}
	unfilled, err := p.search.Ensure(ctx, mappings)
	if err != nil {
		return nil, fmt.Errorf("preparing Elasticsearch: %w", err)
	}
	return unfilled, nil
}

// fillSearch has the records of collections whose index is new written to it, and
// lets queries move there when all are. What is new since is written as it comes.
func (p *parts) fillSearch(ctx context.Context) error {
	if p.search == nil {
		return nil
	}
	unfilled, err := p.ensureSearch(ctx)
	if err != nil || len(unfilled) == 0 {
		return err
	}
	p.logger.InfoContext(ctx, "filling search indexes", "collections", unfilled)
	if err := reconcile.Reindex(ctx, p.stores(), record.Search, unfilled); err != nil {
		return fmt.Errorf("filling the search indexes: %w", err)
	}
	p.logger.InfoContext(ctx, "search indexes are filled", "collections", unfilled)
	return nil
}

func (p *parts) directory() *directory.Directory {
	return directory.New(directory.Config{
		PLCURL: p.cfg.PLCURL, AllowPrivate: p.cfg.AllowPrivate, UserAgent: userAgent(), PDSHosts: httpHosts(p.cfg.Relays),
	})
}

func userAgent() string { return "layers-appview/" + version }

// pings ask each store that is configured whether it answers.
func (p *parts) pings() map[string]func(context.Context) error {
	pings := map[string]func(context.Context) error{"postgresql": p.pool.Ping}
	if p.search != nil {
		pings["elasticsearch"] = p.search.Ping
	}
	if p.graph != nil {
		pings["neo4j"] = p.graph.Ping
	}
	return pings
}

// traversals answers questions about the graph: from Neo4j if there is one, and from
// PostgreSQL if there is none or it is away.
func (p *parts) traversals() rest.Graph {
	switch {
	case p.graph == nil:
		return rest.Graph{Questions: traversal.New(p.relations), From: record.Relations}
	case p.relations == nil:
		return rest.Graph{Questions: traversal.New(graph.NewTraversals(p.graph, store.NewReader(p.pool))), From: record.Graph}
	}
	return rest.Graph{Questions: traversal.NewWithFallback(graph.NewTraversals(p.graph, store.NewReader(p.pool)), p.relations), From: record.Graph}
}
