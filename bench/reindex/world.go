package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/bench/scratch"
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
	*scratch.Stores
	catalog    *catalog.Catalog
	routes     store.Routes
	pool       *pgxpool.Pool
	search     *search.Client
	graph      *graph.Client
	searchable map[syntax.NSID]bool
	keys       []record.Key
	cids       map[record.Key]syntax.CID
}

func openWorld(ctx context.Context) (*world, error) {
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return nil, err
	}
	stores, err := scratch.Open(ctx, servers)
	if err != nil {
		return nil, err
	}
	w := &world{Stores: stores, routes: store.Routes{}, cids: map[record.Key]syntax.CID{}, searchable: map[syntax.NSID]bool{}}
	if err := w.open(ctx); err != nil {
		return nil, errors.Join(err, w.drop())
	}
	return w, nil
}

func (w *world) open(ctx context.Context) (err error) {
	if w.catalog, err = catalog.Load(); err != nil {
		return err
	}
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
	if err := store.Migrate(ctx, w.DatabaseURL, partitions, logger); err != nil {
		return err
	}
	if w.pool, err = store.Open(ctx, store.Config{URL: w.DatabaseURL, MaxConns: 16}); err != nil {
		return err
	}
	if w.search, err = search.Open(search.Config{URLs: []string{w.Elasticsearch}, Prefix: w.Name}); err != nil {
		return err
	}
	if _, err = w.search.Ensure(ctx, mappings); err != nil {
		return err
	}
	w.graph, err = graph.Open(graph.Config{
		URL: w.Neo4j, User: w.Neo4jUser, Password: w.Neo4jPassword, Space: w.Name,
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

func (w *world) compared() reconcile.Stores {
	return reconcile.Stores{
		Catalog: w.catalog, Records: store.NewReader(w.pool), Outbox: store.NewOutbox(w.pool), Tables: store.NewTables(w.pool),
		Search: w.search, Graph: w.graph,
	}
}

func (w *world) drop() error {
	ctx := context.Background()
	var errs []error
	if w.search != nil {
		errs = append(errs, w.search.Close(ctx))
	}
	if w.graph != nil {
		errs = append(errs, w.graph.Close(ctx))
	}
	if w.pool != nil {
		w.pool.Close()
	}
	return errors.Join(append(errs, w.Drop())...)
}
