package search

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// Mapping describes the documents of one collection.
type Mapping struct {
	Collection syntax.NSID
	// Properties is an Elasticsearch "properties" object for the members of
	// [Document.Body]. Members that it does not name are kept but not searchable.
	Properties map[string]any
}

// index is where the documents of a collection are written.
type index struct {
	base  string // of its mapping: the name without a generation
	name  string
	alias string // by which it is queried
	live  bool   // whether the alias leads to it; until then an older index answers
}

// meta is kept in an index's mapping.
type meta struct {
	Prefix     string `json:"prefix"` // tells indexes of prefix a-b from those of a
	Collection string `json:"collection"`
	// Rebuild is true until every record of the collection has been written to
	// the index once. It lives in the index so that a crash does not lose it.
	Rebuild bool `json:"rebuild"`
	// Generation tells an index from others of the same mapping; empty for the first.
	// Building is true until it is promoted, see [Client.Beside].
	Generation string `json:"generation,omitempty"`
	Building   bool   `json:"building,omitempty"`
}

// stored is an index as the server has it.
type stored struct {
	Aliases  map[string]json.RawMessage `json:"aliases"`
	Mappings struct {
		Meta meta `json:"_meta"`
	} `json:"mappings"`
}

// Ensure makes an index for each mapping where there is none, and makes c write
// to it. It may run at any time, in several processes at once.
//
// It returns the collections whose index has yet to be filled, because it is new
// or an earlier rebuild did not end: write all their records, then call
// [Client.Rebuilt]. Where an index of another mapping is there, it goes on
// answering queries until then, and writes go to both.
func (c *Client) Ensure(ctx context.Context, mappings []Mapping) (rebuild []syntax.NSID, err error) {
	if err := c.checkDistinct(mappings); err != nil {
		return nil, err
	}
	if err := c.forbidStrays(ctx); err != nil {
		return nil, err
	}
	existing, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range mappings {
		pending, err := c.ensure(ctx, m, existing)
		if err != nil {
			return nil, fmt.Errorf("elasticsearch: index of %s: %w", m.Collection, err)
		}
		if pending {
			rebuild = append(rebuild, m.Collection)
		}
	}
	return rebuild, nil
}

// strays names the template that [Client.forbidStrays] makes.
func (c *Client) strays() string { return c.prefix + "-strays" }

// forbidStrays has the server make no index for a write alias that leads nowhere any
// more. Bulk requests insist on an alias, but a deletion by version makes an index in
// spite of that, and would be lost in it.
func (c *Client) forbidStrays(ctx context.Context) error {
	body := jsonBody(map[string]any{
		"index_patterns": []string{c.prefix + "-*-write"}, "allow_auto_create": false,
		"priority": len(c.prefix), // prefixes whose patterns overlap differ in length
	})
	if err := c.do(ctx, esapi.IndicesPutIndexTemplateRequest{Name: c.strays(), Body: body, MasterTimeout: masterTimeout}, nil); err != nil {
		return fmt.Errorf("elasticsearch: forbid indexes that nobody asked for: %w", err)
	}
	return nil
}

// checkDistinct refuses collections that differ only in what an index name cannot hold.
func (c *Client) checkDistinct(mappings []Mapping) error {
	owner := map[string]syntax.NSID{}
	for _, m := range mappings {
		alias := c.Alias(m.Collection)
		if other, taken := owner[alias]; taken {
			return fmt.Errorf("elasticsearch: collections %s and %s would share the index name %s", other, m.Collection, alias)
		}
		owner[alias] = m.Collection
	}
	return nil
}

// ensure does one collection and tells whether its index has yet to be filled.
func (c *Client) ensure(ctx context.Context, m Mapping, existing map[string]stored) (pending bool, err error) {
	mapping := mappingBody(m)
	encoded, err := json.Marshal(mapping) // map keys are sorted, so the same mapping has the same text
	if err != nil {
		return false, fmt.Errorf("encode mapping: %w", err)
	}
	alias := c.Alias(m.Collection)
	base := alias + "-" + shortHash(encoded, 8)
	ix := index{base: base, name: present(base, alias, existing), alias: alias}

	found, known := existing[ix.name]
	if known {
		pending = found.Mappings.Meta.Rebuild
		err = c.updateSettings(ctx, ix.name, c.updatableSettings())
	} else {
		pending = true
		mapping["_meta"] = meta{Prefix: c.prefix, Collection: string(m.Collection), Rebuild: true}
		err = c.create(ctx, ix.name, mapping, nil)
	}
	if err != nil {
		return false, err
	}
	if ix.live, err = c.attach(ctx, ix, existing); err != nil {
		return false, err
	}
	c.mu.Lock()
	c.indexes[m.Collection] = ix
	c.mu.Unlock()
	return pending || !ix.live, nil
}

// present is the index of a mapping: the one that is queried if there are several
// generations of it.
func present(base, alias string, existing map[string]stored) string {
	for name, other := range existing {
		if _, live := other.Aliases[alias]; live && other.Mappings.Meta.Generation != "" && name == base+"-"+other.Mappings.Meta.Generation {
			return name
		}
	}
	return base
}

// create makes an index; one that another process has just made will do.
func (c *Client) create(ctx context.Context, name string, mapping, extra map[string]any) error {
	settings := c.updatableSettings()
	maps.Copy(settings, extra)
	settings["number_of_shards"] = 1
	settings["mapping.ignore_above"] = maxKeyword
	body := map[string]any{
		"settings": map[string]any{"index": settings},
		"mappings": mapping,
		"aliases":  map[string]any{writeAlias(name): map[string]any{}},
	}
	err := c.do(ctx, esapi.IndicesCreateRequest{Index: name, Body: jsonBody(body), MasterTimeout: masterTimeout}, nil)
	var status *statusError
	if errors.As(err, &status) && status.Cause.Type == "resource_already_exists_exception" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// attach gives the index its query alias unless an older index has it, and tells
// whether the index has it now.
func (c *Client) attach(ctx context.Context, ix index, existing map[string]stored) (bool, error) {
	if _, live := existing[ix.name].Aliases[ix.alias]; live {
		return true, nil
	}
	for _, other := range existing {
		if _, live := other.Aliases[ix.alias]; live {
			return false, nil
		}
	}
	return true, c.updateAliases(ctx, map[string]any{"add": map[string]any{"index": ix.name, "alias": ix.alias}})
}

// Rebuilt says that every record of a collection has been written since
// [Client.Ensure] asked for it. Queries move to the new index, and then older ones are
// dropped: a query that is under way on one of them fails as unavailable, and is to be
// asked again. What an older release wrote meanwhile may be missing: compare the
// index with its source first if such a writer can have been running.
func (c *Client) Rebuilt(ctx context.Context, collection syntax.NSID) error {
	ix, ok := c.index(collection)
	if !ok {
		return fmt.Errorf("elasticsearch: rebuilt %s: %w", collection, errNoIndex)
	}
	existing, err := c.list(ctx)
	if err != nil {
		return err
	}
	actions := []map[string]any{{"add": map[string]any{"index": ix.name, "alias": ix.alias}}}
	var older []string
	for name, other := range existing {
		if other.Mappings.Meta.Collection == string(collection) && name != ix.name && !other.Mappings.Meta.Building {
			actions = append(actions, retire(name, other)...)
			older = append(older, name)
		}
	}
	if err := c.updateAliases(ctx, actions...); err != nil {
		return fmt.Errorf("elasticsearch: rebuilt %s: %w", collection, err)
	}
	done := existing[ix.name].Mappings.Meta
	done.Prefix, done.Collection, done.Rebuild = c.prefix, string(collection), false
	if err := c.mark(ctx, ix.name, done); err != nil {
		return fmt.Errorf("elasticsearch: rebuilt %s: %w", collection, err)
	}
	ix.live = true
	c.mu.Lock()
	c.indexes[collection] = ix
	c.mu.Unlock()
	for _, name := range older {
		if err := c.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Drop deletes every index of the prefix, with its documents, and its template.
func (c *Client) Drop(ctx context.Context) error {
	existing, err := c.list(ctx)
	if err != nil {
		return err
	}
	for name := range existing {
		if err := c.drop(ctx, name); err != nil {
			return err
		}
	}
	err = c.gone(ctx, esapi.IndicesDeleteIndexTemplateRequest{Name: c.strays(), MasterTimeout: masterTimeout})
	if err != nil {
		return fmt.Errorf("elasticsearch: drop the template %s: %w", c.strays(), err)
	}
	c.mu.Lock()
	clear(c.indexes)
	c.mu.Unlock()
	return nil
}

func (c *Client) drop(ctx context.Context, name string) error {
	if err := c.gone(ctx, esapi.IndicesDeleteRequest{Index: []string{name}, MasterTimeout: masterTimeout}); err != nil {
		return fmt.Errorf("elasticsearch: drop %s: %w", name, err)
	}
	return nil
}

// gone carries out a deletion; of what is not there any more will do.
func (c *Client) gone(ctx context.Context, deletion esapi.Request) error {
	err := c.do(ctx, deletion, nil)
	var status *statusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil
	}
	return err
}

func (c *Client) index(collection syntax.NSID) (index, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ix, ok := c.indexes[collection]
	return ix, ok
}

// list is every index of the prefix, by name.
func (c *Client) list(ctx context.Context) (map[string]stored, error) {
	all := map[string]stored{}
	err := c.do(ctx, esapi.IndicesGetRequest{
		Index:      []string{c.prefix + "-*"},
		FilterPath: []string{"*.aliases", "*.mappings._meta"},
	}, &all)
	if err != nil {
		return nil, fmt.Errorf("elasticsearch: list indexes: %w", err)
	}
	for name, ix := range all {
		if ix.Mappings.Meta.Prefix != c.prefix {
			delete(all, name)
		}
	}
	return all, nil
}

func (c *Client) updateSettings(ctx context.Context, name string, settings map[string]any) error {
	req := esapi.IndicesPutSettingsRequest{
		Index: []string{name}, Body: jsonBody(map[string]any{"index": settings}), MasterTimeout: masterTimeout,
	}
	if err := c.do(ctx, req, nil); err != nil {
		return fmt.Errorf("update settings of %s: %w", name, err)
	}
	return nil
}

// mark writes what an index knows of itself.
func (c *Client) mark(ctx context.Context, name string, about meta) error {
	req := esapi.IndicesPutMappingRequest{
		Index: []string{name}, Body: jsonBody(map[string]any{"_meta": about}), MasterTimeout: masterTimeout,
	}
	if err := c.do(ctx, req, nil); err != nil {
		return fmt.Errorf("mark %s: %w", name, err)
	}
	return nil
}

func (c *Client) updateAliases(ctx context.Context, actions ...map[string]any) error {
	req := esapi.IndicesUpdateAliasesRequest{Body: jsonBody(map[string]any{"actions": actions}), MasterTimeout: masterTimeout}
	if err := c.do(ctx, req, nil); err != nil {
		return fmt.Errorf("update aliases: %w", err)
	}
	return nil
}

// Limits that let every valid record in. A record has at most 1,000,000 bytes.
const (
	// maxNested bounds the nested objects of one document. An object takes at least
	// one byte of a record, so no record has more; the server's own default is 10,000.
	maxNested = 1_000_000
	// maxFields bounds the fields of a mapping. The server guards against mappings
	// that grow with the data; ours come from lexicons and never grow.
	maxFields = 10_000
	// maxKeyword is the length in characters from which a keyword is not indexed:
	// Lucene takes 32,766 bytes, and a character has up to four.
	maxKeyword = 8191
)

// updatableSettings are the index settings that may change while the index is open.
func (c *Client) updatableSettings() map[string]any {
	return map[string]any{
		"number_of_replicas": c.replicas,
		// For how long the version of a deleted document still holds off an older write.
		"gc_deletes":                   "1h",
		"mapping.nested_objects.limit": maxNested,
		"mapping.nested_fields.limit":  maxFields,
		"mapping.total_fields.limit":   maxFields,
	}
}

// mappingBody wraps a collection's properties in the fields that all documents
// have. The record's own are kept under "value", where no lexicon's names can
// clash with ours.
func mappingBody(m Mapping) map[string]any {
	keyword := map[string]any{"type": "keyword"}
	// Years beyond what Elasticsearch reads (0000 or 10000, by way of a time zone) leave the field empty.
	date := map[string]any{"type": "date", "ignore_malformed": true}
	value := map[string]any{"type": "object", "dynamic": false}
	if len(m.Properties) > 0 {
		value["properties"] = m.Properties
	}
	return map[string]any{
		"dynamic": false,
		"properties": map[string]any{
			"uri":        keyword,
			"did":        keyword,
			"collection": keyword,
			"rkey":       keyword,
			"cid":        keyword,
			"version":    map[string]any{"type": "long"},
			"createdAt":  date,
			"indexedAt":  date,
			"value":      value,
		},
	}
}

// jsonBody encodes a request that is known to be encodable.
func jsonBody(v any) *strings.Reader {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("search: encode request: %v", err))
	}
	return strings.NewReader(string(encoded))
}
