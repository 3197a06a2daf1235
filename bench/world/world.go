// Package world fills PostgreSQL with corpora, past the firehose, and builds the
// projections from there: for benchmarks of what comes after ingest.
package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/indexer/rebuild"
	"github.com/layers-pub/layers-appview/indexer/reconcile"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/layout"
)

// World is a part of each store, and what PostgreSQL has in it.
type World struct {
	*scratch.Stores
	Catalog    *catalog.Catalog
	Routes     store.Routes
	Pool       *pgxpool.Pool
	Search     *search.Client
	Graph      *graph.Client
	Searchable map[syntax.NSID]bool
	Keys       []record.Key
	CIDs       map[record.Key]syntax.CID
}

// Open makes empty stores, with the schemas of all record types.
func Open(ctx context.Context, on scratch.Servers) (*World, error) {
	stores, err := scratch.Open(ctx, on)
	if err != nil {
		return nil, err
	}
	w := &World{Stores: stores, Routes: store.Routes{}, CIDs: map[record.Key]syntax.CID{}, Searchable: map[syntax.NSID]bool{}}
	if err := w.open(ctx); err != nil {
		return nil, errors.Join(err, w.Drop())
	}
	return w, nil
}

func (w *World) open(ctx context.Context) (err error) {
	if w.Catalog, err = catalog.Load(); err != nil {
		return err
	}
	var mappings []search.Mapping
	for _, c := range w.Catalog.Collections() {
		w.Routes[c.NSID] = project.Targets(c)
		if m, ok := project.Mapping(c); ok {
			mappings = append(mappings, m)
			w.Searchable[c.NSID] = true
		}
	}
	logger := slog.New(slog.DiscardHandler)
	if err := store.Migrate(ctx, w.DatabaseURL, layout.Partitions(w.Catalog), logger); err != nil {
		return err
	}
	if w.Pool, err = store.Open(ctx, store.Config{URL: w.DatabaseURL, MaxConns: 16}); err != nil {
		return err
	}
	if w.Search, err = search.Open(search.Config{URLs: []string{w.Elasticsearch}, Prefix: w.Name}); err != nil {
		return err
	}
	if _, err = w.Search.Ensure(ctx, mappings); err != nil {
		return err
	}
	w.Graph, err = graph.Open(graph.Config{
		URL: w.Neo4j, User: w.Neo4jUser, Password: w.Neo4jPassword, Space: w.Name,
	})
	if err != nil {
		return err
	}
	return w.Graph.Ensure(ctx)
}

// Fill writes records of corpora to PostgreSQL alone; the outbox keeps those rows that
// are for the targets named. Each record passes through edit first, where there is one.
func (w *World) Fill(ctx context.Context, records int, edit func(*fixture.Planned), keep ...record.Target) error {
	writer := store.NewWriter(w.Pool, w.Routes, slog.New(slog.DiscardHandler))
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
		if edit != nil {
			edit(&planned)
		}
		change, err := w.change(planned)
		if err != nil {
			return err
		}
		changes = append(changes, change)
		if len(changes) == 1000 || len(w.Keys) >= records {
			if err := writer.Apply(ctx, store.Batch{Changes: changes}); err != nil {
				return err
			}
			changes = nil
		}
		if len(w.Keys) >= records {
			break
		}
	}
	if _, err := w.Pool.Exec(ctx, "DELETE FROM outbox WHERE NOT target = ANY ($1)", keep); err != nil {
		return err
	}
	_, err = w.Pool.Exec(ctx, "DELETE FROM sweeps WHERE NOT target = ANY ($1)", keep)
	return err
}

func (w *World) change(planned fixture.Planned) (store.Change, error) {
	block, err := atdata.MarshalCBOR(planned.Value)
	if err != nil {
		return store.Change{}, err
	}
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	if err != nil {
		return store.Change{}, err
	}
	checked, err := w.Catalog.Check(planned.Key, block)
	if err != nil {
		return store.Change{}, fmt.Errorf("%s: %w", planned.Key, err)
	}
	w.Keys = append(w.Keys, planned.Key)
	w.CIDs[planned.Key] = syntax.CID(sum.String())
	return store.Change{
		Action: record.Create, Key: planned.Key, Rev: syntax.NewTIDNow(0), CID: syntax.CID(sum.String()),
		JSON: checked.JSON, CreatedAt: checked.CreatedAt, Filter: checked.Filter, Refs: checked.Refs, Links: checked.Links,
	}, nil
}

// Compared is what a comparison of the stores needs.
func (w *World) Compared() reconcile.Stores {
	return reconcile.Stores{
		Catalog: w.Catalog, Records: store.NewReader(w.Pool), Outbox: store.NewOutbox(w.Pool), Tables: store.NewTables(w.Pool),
		Search: w.Search, Graph: w.Graph,
	}
}

// Drop takes all of it away.
func (w *World) Drop() error {
	ctx := context.Background()
	var errs []error
	if w.Search != nil {
		errs = append(errs, w.Search.Close(ctx))
	}
	if w.Graph != nil {
		errs = append(errs, w.Graph.Close(ctx))
	}
	if w.Pool != nil {
		w.Pool.Close()
	}
	return errors.Join(append(errs, w.Stores.Drop())...)
}

// Rebuild is the rebuild of a target.
func (w *World) Rebuild(target record.Target, report func(rebuild.Progress)) rebuild.Config {
	cfg := rebuild.Config{
		Catalog: w.Catalog, Records: store.NewReader(w.Pool), Outbox: store.NewOutbox(w.Pool), Rebuilds: store.NewRebuilds(w.Pool),
		Letters: store.NewDeadLetters(w.Pool), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Report: report,
		Next: rebuild.NewGraph(w.Catalog, w.Graph),
	}
	if target == record.Search {
		cfg.Next = rebuild.NewSearch(w.Catalog, w.Search)
	}
	for collection, targets := range w.Routes {
		if slices.Contains(targets, target) {
			cfg.Collections = append(cfg.Collections, collection)
		}
	}
	slices.Sort(cfg.Collections)
	return cfg
}
