package verify

import (
	"strings"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/record"
)

// op is a repoOp with its path parsed.
type op struct {
	repo.Operation
	action record.Action
	key    record.Key
}

// parseOps checks that each op has the CIDs that its action needs. An op of a
// legacy host has no prev; lenient lets it pass.
func parseOps(did syntax.DID, raw []*comatproto.SyncSubscribeRepos_RepoOp, lenient bool) ([]op, error) {
	ops := make([]op, 0, len(raw))
	collections := map[string]syntax.NSID{}
	for i, r := range raw {
		if r == nil {
			return nil, refuse(Malformed, "op %d is null", i)
		}
		collection, rkey, err := parsePath(r.Path, collections)
		if err != nil {
			return nil, refuse(Malformed, "op on %q: %w", r.Path, err)
		}
		o := op{
			Operation: repo.Operation{Path: r.Path, Value: (*cid.Cid)(r.Cid), Prev: (*cid.Cid)(r.Prev)},
			action:    record.Action(r.Action),
			key:       record.Key{DID: did, Collection: collection, Rkey: rkey},
		}
		if err := o.checkShape(lenient); err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// parsePath parses a record's path. The ops of a commit are of few collections, each of
// which is checked once and kept in known.
func parsePath(path string, known map[string]syntax.NSID) (syntax.NSID, syntax.RecordKey, error) {
	before, after, _ := strings.Cut(path, "/")
	if collection, ok := known[before]; ok {
		rkey, err := syntax.ParseRecordKey(after)
		return collection, rkey, err
	}
	collection, rkey, err := syntax.ParseRepoPath(path)
	if err == nil {
		known[before] = collection
	}
	return collection, rkey, err
}

func (o op) checkShape(lenient bool) error {
	hasValue, hasPrev := o.Value != nil, o.Prev != nil
	ok := false
	switch o.action {
	case record.Create:
		ok = hasValue && !hasPrev
	case record.Update:
		ok = hasValue && (hasPrev || lenient)
	case record.Delete:
		ok = !hasValue && (hasPrev || lenient)
	}
	if !ok {
		return refuse(Malformed, "op on %s: action %q with cid %t and prev %t", o.Path, o.action, hasValue, hasPrev)
	}
	return nil
}

// invertible tells whether the ops say enough to be undone.
func invertible(ops []op) bool {
	for _, o := range ops {
		if o.action != record.Create && o.Prev == nil {
			return false
		}
	}
	return true
}

// emptyTree is the root of a tree without records.
var emptyTree = func() cid.Cid {
	tree := mst.NewEmptyTree()
	root, err := tree.RootCID()
	if err != nil {
		panic(err) // of a constant
	}
	return *root
}()

// checkTree undoes the ops on the tree that the commit signs and holds the result
// against the root of the tree before. Package mst does the undoing; should it
// stumble over a tree that readTree has let through, the blocks are at fault.
func checkTree(tree *mst.Tree, ops []op, prevData cid.Cid) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = refuse(Tree, "undoing the ops panicked: %v", r)
		}
	}()
	operations, err := normalize(ops)
	if err != nil {
		return err
	}
	for i := range operations {
		if err := repo.InvertOp(tree, &operations[i]); err != nil {
			return refuse(Tree, "op on %s: %w", operations[i].Path, err)
		}
	}
	before, err := tree.RootCID()
	if err != nil {
		return refuse(Tree, "computing the root before the ops: %w", err)
	}
	if *before != prevData {
		return refuse(Tree, "undoing the ops gives the root %s, prevData is %s", before, prevData)
	}
	return nil
}

// checkForward is what can be asked of a commit that does not say enough to be
// undone: that the tree shows each of the ops. That there were no others, it
// cannot tell.
func checkForward(tree *mst.Tree, ops []op) error {
	if _, err := normalize(ops); err != nil {
		return err
	}
	for _, o := range ops {
		value, err := tree.Get([]byte(o.Path))
		if err != nil {
			return refuse(Tree, "op on %s: %w", o.Path, err)
		}
		if (value == nil) != (o.Value == nil) || value != nil && *value != *o.Value {
			return refuse(Tree, "op on %s: the tree has %v, the op %v", o.Path, value, o.Value)
		}
	}
	return nil
}

// normalize puts the ops into the order in which they can be undone. No path may
// be there twice.
func normalize(ops []op) ([]repo.Operation, error) {
	operations := make([]repo.Operation, len(ops))
	for i := range ops {
		operations[i] = ops[i].Operation
	}
	operations, err := repo.NormalizeOps(operations)
	if err != nil {
		return nil, refuse(Malformed, "ops: %w", err)
	}
	return operations, nil
}

// collect picks the ops on followed collections and finds their record blocks.
// Checking the tree has shown that each op's CID is the tree's value for its path.
func collect(blocks blockMap, ops []op, follows func(syntax.NSID) bool) ([]record.Op, error) {
	var out []record.Op
	for _, o := range ops {
		if !follows(o.key.Collection) {
			continue
		}
		picked := record.Op{Action: o.action, Key: o.key}
		if o.Value != nil {
			block, ok := blocks[*o.Value]
			if !ok {
				return nil, refuse(Blocks, "the block %s of record %s is missing", o.Value, o.Path)
			}
			picked.CID, picked.CBOR = syntax.CID(o.Value.String()), block
		}
		out = append(out, picked)
	}
	return out, nil
}
