package simulate

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

func (h *host) getLatestCommit(q url.Values) (any, error) {
	a, err := h.repo(q.Get("did"))
	if err != nil {
		return nil, err
	}
	return map[string]any{"cid": a.head.String(), "rev": a.rev}, nil
}

func (h *host) getRepoStatus(q url.Values) (any, error) {
	a, ok := h.world.accounts[syntax.DID(q.Get("did"))]
	if !ok {
		return nil, &xrpcError{http.StatusBadRequest, "RepoNotFound", "could not find repo: " + q.Get("did")}
	}
	return status(a), nil
}

// status is an account's state as the sync methods have it.
func status(a *account) map[string]any {
	out := map[string]any{"did": a.did, "active": a.status == Active}
	if a.status == Active {
		out["rev"] = a.rev
	} else {
		out["status"] = a.status
	}
	return out
}

func (h *host) listRepos(q url.Values) (any, error) {
	return h.page(q, "repos", 500, 1000, func(*account) bool { return true }, func(a *account) any {
		item := status(a)
		item["head"], item["rev"] = a.head.String(), a.rev
		return item
	})
}

func (h *host) listReposByCollection(q url.Values) (any, error) {
	collection, err := syntax.ParseNSID(q.Get("collection"))
	if err != nil {
		return nil, invalid("collection: %v", err)
	}
	return h.page(q, "repos", 500, 2000, func(a *account) bool {
		return a.status == Active && slices.Contains(collections(a), string(collection))
	}, func(a *account) any { return map[string]any{"did": a.did} })
}

// page answers with the accounts that match, in order of creation; the cursor is
// the last DID seen. Deleted accounts are not listed.
func (h *host) page(q url.Values, name string, standard, most int, match func(*account) bool, item func(*account) any) (any, error) {
	limit, err := limitOf(q, standard, most)
	if err != nil {
		return nil, err
	}
	items := []any{}
	start := slices.Index(h.world.order, syntax.DID(q.Get("cursor"))) + 1
	last := syntax.DID("")
	for _, did := range h.world.order[start:] {
		a := h.world.accounts[did]
		if a.status == Deleted || !match(a) {
			continue
		}
		if len(items) == limit {
			return map[string]any{name: items, "cursor": last}, nil
		}
		items, last = append(items, item(a)), did
	}
	return map[string]any{name: items}, nil
}

const carType = "application/vnd.ipld.car"

// getRepo streams the whole repository: commit, tree, records. It ignores since,
// as a host may.
func (h *host) getRepo(out http.ResponseWriter, in *http.Request) {
	root, content, err := h.snapshot(in.URL.Query())
	if err != nil {
		writeError(out, err)
		return
	}
	out.Header().Set("Content-Type", carType)
	if writeCARHeader(out, root) != nil {
		return
	}
	for _, b := range content {
		if writeCARBlock(out, b) != nil {
			return
		}
	}
}

func (h *host) snapshot(q url.Values) (cid.Cid, []block, error) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	a, err := h.repo(q.Get("did"))
	if err != nil {
		return cid.Undef, nil, err
	}
	content := []block{{a.head, a.commit}}
	seen := map[cid.Cid]bool{}
	err = walkNodes(a.tree.Root, func(n *mst.Node) error {
		b, err := encodeNode(n)
		content = append(content, b)
		return err
	}, func(c cid.Cid) error {
		if !seen[c] {
			seen[c] = true
			content = append(content, block{c, h.world.blocks[c]})
		}
		return nil
	})
	return a.head, content, err
}

// getRecordProof answers with the commit, the tree nodes that lead to the record
// or to where it would be, and the record.
func (h *host) getRecordProof(out http.ResponseWriter, in *http.Request) {
	car, err := h.proof(in.URL.Query())
	if err != nil {
		writeError(out, err)
		return
	}
	out.Header().Set("Content-Type", carType)
	_, _ = out.Write(car)
}

func (h *host) proof(q url.Values) ([]byte, error) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	a, err := h.repo(q.Get("did"))
	if err != nil {
		return nil, err
	}
	path := []byte(q.Get("collection") + "/" + q.Get("rkey"))
	value, err := a.tree.Get(path)
	if err != nil {
		return nil, invalid("record path: %v", err)
	}
	content := []block{{a.head, a.commit}}
	for _, n := range pathNodes(a.tree.Root, path) {
		b, err := encodeNode(n)
		if err != nil {
			return nil, err
		}
		content = append(content, b)
	}
	if value != nil {
		content = append(content, block{*value, h.world.blocks[*value]})
	}
	return encodeCAR(a.head, content)
}
