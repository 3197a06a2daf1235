package verify

import (
	"context"
	"fmt"

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

// parseOps checks that each op has the CIDs that its action needs.
func parseOps(did syntax.DID, raw []*comatproto.SyncSubscribeRepos_RepoOp) ([]op, error) {
	ops := make([]op, 0, len(raw))
	for i, r := range raw {
		if r == nil {
			return nil, refuse(Malformed, "op %d is null", i)
		}
		collection, rkey, err := syntax.ParseRepoPath(r.Path)
		if err != nil {
			return nil, refuse(Malformed, "op on %q: %w", r.Path, err)
		}
		o := op{
			Operation: repo.Operation{Path: r.Path, Value: (*cid.Cid)(r.Cid), Prev: (*cid.Cid)(r.Prev)},
			action:    record.Action(r.Action),
			key:       record.Key{DID: did, Collection: collection, Rkey: rkey},
		}
		if err := o.checkShape(); err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	return ops, nil
}

func (o op) checkShape() error {
	hasValue, hasPrev := o.Value != nil, o.Prev != nil
	ok := false
	switch o.action {
	case record.Create:
		ok = hasValue && !hasPrev
	case record.Update:
		ok = hasValue && hasPrev
	case record.Delete:
		ok = !hasValue && hasPrev
	}
	if !ok {
		return refuse(Malformed, "op on %s: action %q with cid %t and prev %t", o.Path, o.action, hasValue, hasPrev)
	}
	return nil
}

// checkTree undoes the ops on the tree that the commit signs and holds the result
// against prevData, the root of the tree before; a repository's first commit must
// lead back to the empty tree. Package mst indexes by what the blocks say, so a
// panic there is the blocks' fault.
func checkTree(ctx context.Context, blocks blockMap, root cid.Cid, ops []op, prevData *cid.Cid, first bool) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = refuse(Tree, "reading the tree panicked: %v", r)
		}
	}()
	tree, err := mst.LoadTreeFromStore(ctx, blocks, root)
	if err != nil {
		return refuse(Blocks, "reading the tree: %w", err)
	}
	before, err := invert(tree, ops)
	if err != nil {
		return err
	}
	if prevData == nil && first {
		empty := mst.NewEmptyTree()
		prevData, err = empty.RootCID()
		if err != nil {
			return fmt.Errorf("computing the root of the empty tree: %w", err)
		}
	}
	if prevData == nil {
		return refuse(Malformed, "prevData is missing, and the commit is not the repository's first")
	}
	if *before != *prevData {
		return refuse(Tree, "undoing the ops gives the root %s, prevData is %s", before, prevData)
	}
	return nil
}

func invert(tree *mst.Tree, ops []op) (*cid.Cid, error) {
	operations := make([]repo.Operation, len(ops))
	for i := range ops {
		operations[i] = ops[i].Operation
	}
	operations, err := repo.NormalizeOps(operations)
	if err != nil {
		return nil, refuse(Malformed, "ops: %w", err)
	}
	for i := range operations {
		if err := repo.InvertOp(tree, &operations[i]); err != nil {
			return nil, refuse(Tree, "op on %s: %w", operations[i].Path, err)
		}
	}
	root, err := tree.RootCID()
	if err != nil {
		return nil, refuse(Tree, "computing the root before the ops: %w", err)
	}
	return root, nil
}

// collect picks the ops on followed collections and finds their record blocks.
// Inverting has shown that each op's CID is the tree's value for its path.
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
