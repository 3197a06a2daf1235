package rest

import (
	"context"
	"errors"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

const (
	everyPath    = "*"
	mostIncluded = 500 // records beside those that were asked for
)

// include reads the records that expand asks for beside others: two questions to the
// store, however many records there are.
func (s *Service) include(c *Call, asked shape, records []record.Record) (map[syntax.ATURI]view, error) {
	if len(asked.expand) == 0 || len(records) == 0 {
		return nil, nil
	}
	var sources []record.Key
	for i := range records {
		sources = append(sources, records[i].Key)
	}
	paths := asked.expand
	if slices.Contains(paths, everyPath) {
		paths = nil
	}
	found, err := s.reads.Targets(c.Ctx(), sources, paths, 20*mostIncluded+1)
	if err != nil {
		return nil, err
	}
	targets := keysOf(found)
	if len(targets) > mostIncluded || len(found) > 20*mostIncluded {
		return nil, TooLarge("parameter %q: the records refer to more than %d others; ask for fewer records, or for fewer paths", "expand", mostIncluded)
	}
	return s.views(c.Ctx(), targets)
}

// views reads records of any collections. Those that are not there are left out.
func (s *Service) views(ctx context.Context, keys []record.Key) (map[syntax.ATURI]view, error) {
	loaded, err := s.reads.LoadAll(ctx, keys)
	if errors.Is(err, store.ErrTooMuch) {
		return nil, TooLarge("the records that this answer would include have more than 16 MiB together; ask for fewer")
	}
	if err != nil {
		return nil, err
	}
	views := make(map[syntax.ATURI]view, len(loaded))
	for key, r := range loaded {
		views[key.URI()] = viewOf(r)
	}
	return views, nil
}

// keysOf are the records that references lead to, each once.
func keysOf(references []store.Reference) []record.Key {
	var keys []record.Key
	seen := map[record.Key]bool{}
	for _, r := range references {
		if key, ok := recordAt(r.Target); ok && !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// recordAt is the record that a target names, if it is an AT-URI of one with a DID. A
// handle is left alone: whom it names today need not be whom it named.
func recordAt(target string) (record.Key, bool) {
	if len(target) < 5 || target[:5] != "at://" {
		return record.Key{}, false
	}
	repo, collection, rkey := xrpc.SplitURI(syntax.ATURI(target))
	did, err := repo.AsDID()
	return record.Key{DID: did, Collection: collection, Rkey: rkey}, err == nil && rkey != ""
}
