package graph

import (
	"context"
	"fmt"
	"strings"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Filler fills a generation that nobody else writes, see [Client.Beside]: without
// asking for each record what is there, and many of them in a transaction. Each
// transaction also notes how far it has come, so that filling goes on exactly there
// after a kill. It is for one goroutine, apart from Prepare.
type Filler struct {
	client *Client
	known  map[string]struct{} // keys of nodes that are there, as far as they are remembered
	fresh  []string            // those of the transaction under way
}

// Bounds of a transaction and of what a filler remembers: some 150 bytes a key.
const (
	FillRecords = 2000
	fillEdges   = 10_000
	maxKnown    = 300_000
)

// NewFiller makes a filler for the client's generation.
func (c *Client) NewFiller() *Filler {
	return &Filler{client: c, known: map[string]struct{}{}}
}

// Prepared are subgraphs in the form that the graph takes.
type Prepared struct {
	batch, large []prepared
	failures     []Failure
}

// Prepare does what needs no server. It may be called by several goroutines.
func (f *Filler) Prepare(subgraphs []Subgraph) Prepared {
	w := writer{client: f.client}
	out := Prepared{}
	for _, p := range w.prepare(subgraphs) {
		if len(p.Edges) > maxEdges {
			out.large = append(out.large, p)
		} else {
			out.batch = append(out.batch, p)
		}
	}
	out.failures = w.failures
	return out
}

// Fill writes prepared subgraphs of records that are not there yet, and with the last
// of them that the generation is filled up to a record, and has so many. It returns
// nil or a *[WriteError] where records were refused for what they hold; any other
// error means that nothing is noted, and the same may be tried again.
func (f *Filler) Fill(ctx context.Context, p Prepared, upTo record.Key, done int64) error {
	w := writer{client: f.client, failures: p.failures}
	for _, large := range p.large {
		if err := f.client.replaceLarge(ctx, large); err != nil {
			if !refused(err) {
				return err
			}
			w.fail(large, err)
		}
	}
	parts := split(p.batch)
	for i, part := range parts {
		note := func(transaction) error { return nil }
		if i == len(parts)-1 {
			note = func(tx transaction) error { return tx.note(ctx, f.client, upTo, done) }
		}
		err := f.client.transact(ctx, func(tx transaction) error {
			f.fresh = f.fresh[:0]
			if err := f.create(ctx, tx, part, i < len(parts)-1); err != nil {
				return err
			}
			return note(tx)
		})
		if err == nil {
			f.remember()
			continue
		}
		if !refused(err) {
			return err
		}
		w.write(ctx, part) // one by one in the end, and noted apart
		if err := f.client.transact(ctx, note); err != nil {
			return err
		}
	}
	if len(w.failures) > 0 {
		return &WriteError{Failures: w.failures}
	}
	return nil
}

// split bounds what comes into one transaction. There is at least one part, so that
// there is one to note the progress in.
func split(batch []prepared) [][]prepared {
	parts := [][]prepared{nil}
	edges := 0
	for _, p := range batch {
		last := &parts[len(parts)-1]
		if len(*last) > 0 && (len(*last) == FillRecords || edges+len(p.Edges) > fillEdges) {
			parts, edges = append(parts, nil), 0
			last = &parts[len(parts)-1]
		}
		*last = append(*last, p)
		edges += len(p.Edges)
	}
	return parts
}

// create writes the records' nodes, then those that edges need, then the edges. A
// part before the last is not noted, so after a kill its edges may be there already:
// it takes the careful way.
func (f *Filler) create(ctx context.Context, tx transaction, batch []prepared, careful bool) error {
	if careful {
		_, err := tx.replace(ctx, batch)
		return err
	}
	byLabels := map[string][]any{}
	for _, p := range batch {
		labels := strings.Join(p.labels, ":")
		byLabels[labels] = append(byLabels[labels], p.properties)
		f.fresh = append(f.fresh, string(RecordNode)+p.key)
	}
	for _, labels := range sortedKeys(byLabels) {
		set := "SET n = row"
		if labels != "" {
			set += ", n:" + labels
		}
		if err := tx.run(ctx, "make records", "UNWIND $rows AS row MERGE (n:Record {key: row.key}) "+set, byLabels[labels]); err != nil {
			return err
		}
	}
	if err := f.mergeTargets(ctx, tx, batch); err != nil {
		return err
	}
	return tx.createEdges(ctx, batch)
}

// mergeTargets makes the nodes that edges need and that are not known to be there.
func (f *Filler) mergeTargets(ctx context.Context, tx transaction, batch []prepared) error {
	here := make(map[string]struct{}, len(batch))
	for _, p := range batch {
		here[p.key] = struct{}{}
	}
	for _, kind := range []NodeKind{RecordNode, KnowledgeNode, ExternalNode} {
		var rows []any
		seen := map[string]struct{}{}
		for _, p := range batch {
			for key, known := range p.targets[kind] {
				id := string(kind) + key
				_, there := f.known[id]
				_, twice := seen[key]
				_, own := here[key]
				if there || twice || own && kind == RecordNode {
					continue
				}
				seen[key] = struct{}{}
				f.fresh = append(f.fresh, id)
				rows = append(rows, map[string]any{"key": key, "known": known})
			}
		}
		err := tx.run(ctx, "make nodes", fmt.Sprintf("UNWIND $rows AS row MERGE (n:%s {key: row.key}) ON CREATE SET n += row.known", kind), rows)
		if err != nil {
			return err
		}
	}
	return nil
}

// remember takes the nodes of a committed transaction for known.
func (f *Filler) remember() {
	if len(f.known)+len(f.fresh) > maxKnown {
		clear(f.known)
	}
	for _, id := range f.fresh {
		f.known[id] = struct{}{}
	}
}

// note keeps how far the generation is filled.
func (tx transaction) note(ctx context.Context, c *Client, upTo record.Key, done int64) error {
	return tx.run(ctx, "note the progress", "UNWIND $rows AS row MERGE (f:Filling {key: row.key}) SET f = row", []any{map[string]any{
		"key": c.space, "space": c.generationKey(), "collection": string(upTo.Collection), "did": string(upTo.DID), "rkey": string(upTo.Rkey), "done": done,
	}})
}
