package search

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// A generation is a set of indexes, one for each collection, that are filled beside
// the served ones and take their place all at once.

var generationPattern = regexp.MustCompile(`^[a-z0-9]{1,20}$`)

// Beside makes the indexes of a generation, where they are not there yet, and returns
// a client that writes and scans those. They are laid out for being filled: not
// refreshed, and without replicas. [Client.Promote] puts them to use. fresh tells
// whether any of them had to be made.
func (c *Client) Beside(ctx context.Context, generation string, mappings []Mapping) (beside *Client, fresh bool, err error) {
	if !generationPattern.MatchString(generation) {
		return nil, false, fmt.Errorf("elasticsearch: generation %q: use 1-20 of a-z 0-9", generation)
	}
	existing, err := c.list(ctx)
	if err != nil {
		return nil, false, err
	}
	beside = &Client{transport: c.transport, prefix: c.prefix, replicas: c.replicas, indexes: map[syntax.NSID]index{}, fixed: true}
	for _, m := range mappings {
		mapping := mappingBody(m)
		encoded, err := json.Marshal(mapping)
		if err != nil {
			return nil, false, fmt.Errorf("elasticsearch: encode mapping of %s: %w", m.Collection, err)
		}
		base := c.Alias(m.Collection) + "-" + shortHash(encoded, 8)
		ix := index{base: base, name: base + "-" + generation, alias: c.Alias(m.Collection), live: true}
		beside.indexes[m.Collection] = ix
		if _, there := existing[ix.name]; there {
			continue
		}
		fresh = true
		mapping["_meta"] = meta{Prefix: c.prefix, Collection: string(m.Collection), Generation: generation, Building: true}
		err = c.create(ctx, ix.name, mapping, map[string]any{"number_of_replicas": 0, "refresh_interval": "-1"})
		if err != nil {
			return nil, false, fmt.Errorf("elasticsearch: index of %s: %w", m.Collection, err)
		}
	}
	return beside, fresh, nil
}

// Promote puts a generation to use: queries of all its collections move to it in one
// step. Writers that know the indexes that were used before cannot write them any more
// and look for the new ones. Those stay, for the queries under way on them, until
// [Client.Abandon].
func (c *Client) Promote(ctx context.Context, beside *Client) error {
	existing, err := c.list(ctx)
	if err != nil {
		return err
	}
	var actions []map[string]any
	for collection, ix := range beside.indexes {
		if err := c.settle(ctx, ix.name); err != nil {
			return fmt.Errorf("elasticsearch: promote %s: %w", ix.name, err)
		}
		actions = append(actions, map[string]any{"add": map[string]any{"index": ix.name, "alias": ix.alias}})
		for name, other := range existing {
			if other.Mappings.Meta.Collection == string(collection) && name != ix.name {
				actions = append(actions, retire(name, other)...)
			}
		}
	}
	if err := c.updateAliases(ctx, actions...); err != nil {
		return fmt.Errorf("elasticsearch: promote: %w", err)
	}
	for collection, ix := range beside.indexes {
		done := existing[ix.name].Mappings.Meta
		done.Building = false
		if err := c.mark(ctx, ix.name, done); err != nil {
			return fmt.Errorf("elasticsearch: promote %s: %w", ix.name, err)
		}
		c.mu.Lock()
		c.indexes[collection] = ix
		c.mu.Unlock()
	}
	return nil
}

// retire takes all aliases from an index, so that nobody finds it any more. To remove
// it in the same step would fail the queries that the server has begun, and those that
// it takes before all of its parts have heard of the step.
func retire(name string, ix stored) []map[string]any {
	var actions []map[string]any
	for alias := range ix.Aliases {
		actions = append(actions, map[string]any{"remove": map[string]any{"index": name, "alias": alias}})
	}
	return actions
}

// retired tells whether an index has been replaced.
func (ix stored) retired() bool { return len(ix.Aliases) == 0 }

// settle gives an index the settings of one in use, and shows what is in it.
func (c *Client) settle(ctx context.Context, name string) error {
	settings := c.updatableSettings()
	settings["refresh_interval"] = nil // the default
	if err := c.updateSettings(ctx, name, settings); err != nil {
		return err
	}
	return c.do(ctx, esapi.IndicesRefreshRequest{Index: []string{name}}, nil)
}

// Abandon drops the indexes of generations that were not promoted, and those that
// another has replaced.
func (c *Client) Abandon(ctx context.Context) error {
	existing, err := c.list(ctx)
	if err != nil {
		return err
	}
	for name, ix := range existing {
		_, live := ix.Aliases[c.Alias(syntax.NSID(ix.Mappings.Meta.Collection))]
		if ix.retired() || !live && ix.Mappings.Meta.Generation != "" {
			if err := c.drop(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// relocate looks for the index that each collection is queried by, after one that
// was known turned out to be gone or replaced, and tells whether any has changed. One of another
// mapping is another release's, and not to be written by this one.
func (c *Client) relocate(ctx context.Context) bool {
	if c.fixed {
		return false
	}
	existing, err := c.list(ctx)
	if err != nil {
		return false // the failures say enough
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for collection, ix := range c.indexes {
		if known, there := existing[ix.name]; there && !known.retired() {
			continue
		}
		for name, other := range existing {
			if _, live := other.Aliases[ix.alias]; live && name == ix.base+"-"+other.Mappings.Meta.Generation {
				c.indexes[collection] = index{base: ix.base, name: name, alias: ix.alias, live: true}
				changed = true
			}
		}
	}
	return changed
}
