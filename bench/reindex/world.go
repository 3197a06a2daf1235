package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
)

// world is a part of each store, and what PostgreSQL has in it.
type world struct {
	admin, name string
	url         string
	catalog     *catalog.Catalog
	routes      store.Routes
	pool        *pgxpool.Pool
	search      *search.Client
	graph       *graph.Client
	searchable  map[syntax.NSID]bool
	keys        []record.Key
	cids        map[record.Key]syntax.CID
}

func openWorld(ctx context.Context) (*world, error) {
	w := &world{
		admin: os.Getenv("LAYERS_TEST_DATABASE_URL"), name: "bench-" + strings.ToLower(rand.Text())[:12],
		routes: store.Routes{}, cids: map[record.Key]syntax.CID{}, searchable: map[syntax.NSID]bool{},
	}
	if err := w.open(ctx); err != nil {
		return nil, errors.Join(err, w.drop())
	}
	return w, nil
}

func (w *world) database() string { return strings.ReplaceAll(w.name, "-", "_") }

func (w *world) administer(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, w.admin)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

func (w *world) open(ctx context.Context) (err error) {
	if w.catalog, err = catalog.Load(); err != nil {
		return err
	}
	if err := w.administer(ctx, "CREATE DATABASE "+w.database()); err != nil {
		return err
	}
	u, err := url.Parse(w.admin)
	if err != nil {
		return err
	}
	u.Path = "/" + w.database()
	w.url = u.String()
	var partitions []store.Partition
	var mappings []search.Mapping
	for _, c := range w.catalog.Collections() {
		partitions = append(partitions, store.Partition{Collection: c.NSID})
		w.routes[c.NSID] = project.Targets(c)
		if m, ok := project.Mapping(c); ok {
			mappings = append(mappings, m)
			w.searchable[c.NSID] = true
		}
	}
	logger := slog.New(slog.DiscardHandler)
	if err := store.Migrate(ctx, w.url, partitions, logger); err != nil {
		return err
	}
	if w.pool, err = store.Open(ctx, store.Config{URL: w.url, MaxConns: 16}); err != nil {
		return err
	}
	if w.search, err = search.Open(search.Config{URLs: []string{os.Getenv("LAYERS_TEST_ELASTICSEARCH_URL")}, Prefix: w.name}); err != nil {
		return err
	}
	if _, err = w.search.Ensure(ctx, mappings); err != nil {
		return err
	}
	w.graph, err = graph.Open(graph.Config{
		URL: os.Getenv("LAYERS_TEST_NEO4J_URL"), User: os.Getenv("LAYERS_TEST_NEO4J_USER"), Password: os.Getenv("LAYERS_TEST_NEO4J_PASSWORD"), Space: w.name,
	})
	if err != nil {
		return err
	}
	return w.graph.Ensure(ctx)
}

// fill writes records of corpora to PostgreSQL alone.
func (w *world) fill(ctx context.Context, records int) error {
	writer := store.NewWriter(w.pool, w.routes, slog.New(slog.DiscardHandler))
	release, _, err := writer.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	authors := make([]syntax.DID, 50)
	for i := range authors {
		authors[i] = syntax.DID("did:plc:" + strings.ToLower(rand.Text())[:24])
	}
	var changes []store.Change
	for planned := range fixture.Corpora(1, authors, 20) {
		change, err := w.change(planned)
		if err != nil {
			return err
		}
		changes = append(changes, change)
		if len(changes) == 1000 || len(w.keys) >= records {
			if err := writer.Apply(ctx, store.Batch{Changes: changes}); err != nil {
				return err
			}
			changes = nil
		}
		if len(w.keys) >= records {
			break
		}
	}
	_, err = w.pool.Exec(ctx, "TRUNCATE outbox, sweeps")
	return err
}

func (w *world) change(planned fixture.Planned) (store.Change, error) {
	block, err := atdata.MarshalCBOR(planned.Value)
	if err != nil {
		return store.Change{}, err
	}
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	if err != nil {
		return store.Change{}, err
	}
	checked, err := w.catalog.Check(planned.Key, block)
	if err != nil {
		return store.Change{}, fmt.Errorf("%s: %w", planned.Key, err)
	}
	w.keys = append(w.keys, planned.Key)
	w.cids[planned.Key] = syntax.CID(sum.String())
	return store.Change{
		Action: record.Create, Key: planned.Key, Rev: syntax.NewTIDNow(0), CID: syntax.CID(sum.String()),
		JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
	}, nil
}

func (w *world) stores() reconcile.Stores {
	return reconcile.Stores{
		Catalog: w.catalog, Records: store.NewReader(w.pool), Outbox: store.NewOutbox(w.pool), Tables: store.NewTables(w.pool),
		Search: w.search, Graph: w.graph,
	}
}

func (w *world) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var errs []error
	if w.search != nil {
		errs = append(errs, w.search.Drop(ctx))
	}
	if w.graph != nil {
		errs = append(errs, w.graph.Wipe(ctx), w.graph.Close(ctx))
	}
	if w.pool != nil {
		w.pool.Close()
	}
	return errors.Join(append(errs, w.administer(ctx, "DROP DATABASE IF EXISTS "+w.database()+" WITH (FORCE)"))...)
}
