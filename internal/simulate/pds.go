package simulate

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// host answers the com.atproto.repo queries of a PDS; sync.go has the sync ones.
type host struct {
	world *World
	url   func() string
}

func (h *host) routes(mux *http.ServeMux) {
	for method, answer := range map[string]func(url.Values) (any, error){
		"repo.getRecord":             h.getRecord,
		"repo.listRecords":           h.listRecords,
		"repo.describeRepo":          h.describeRepo,
		"sync.getLatestCommit":       h.getLatestCommit,
		"sync.getRepoStatus":         h.getRepoStatus,
		"sync.listRepos":             h.listRepos,
		"sync.listReposByCollection": h.listReposByCollection,
	} {
		mux.HandleFunc("GET /xrpc/com.atproto."+method, func(out http.ResponseWriter, in *http.Request) {
			h.world.mu.Lock()
			value, err := answer(in.URL.Query())
			h.world.mu.Unlock()
			if err != nil {
				writeError(out, err)
				return
			}
			writeJSON(out, value)
		})
	}
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", h.getRepo)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRecord", h.getRecordProof)
}

// repo finds the account that a request names by DID or handle, and refuses one
// that is not active, as a PDS does.
func (h *host) repo(identifier string) (*account, error) {
	did, err := syntax.ParseDID(identifier)
	if err != nil {
		did = h.world.handles[syntax.Handle(strings.ToLower(identifier))]
	}
	a, ok := h.world.accounts[did]
	if !ok {
		return nil, &xrpcError{http.StatusBadRequest, "RepoNotFound", "could not find repo: " + identifier}
	}
	names := map[Status]string{Deactivated: "RepoDeactivated", Suspended: "RepoSuspended",
		TakenDown: "RepoTakendown", Deleted: "RepoNotFound"}
	if name, inactive := names[a.status]; inactive {
		return nil, &xrpcError{http.StatusBadRequest, name, "repo is not available: " + identifier}
	}
	return a, nil
}

type repoRecord struct {
	URI   syntax.ATURI    `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

func (h *host) record(a *account, path string, c cid.Cid) (repoRecord, error) {
	value, err := atdata.UnmarshalCBOR(h.world.blocks[c])
	if err != nil {
		return repoRecord{}, &xrpcError{http.StatusInternalServerError, "InternalServerError", "record is no data"}
	}
	raw, err := json.Marshal(value)
	return repoRecord{URI: keyOf(a.did, path).URI(), CID: c.String(), Value: raw}, err
}

func (h *host) getRecord(q url.Values) (any, error) {
	a, err := h.repo(q.Get("repo"))
	if err != nil {
		return nil, err
	}
	path := q.Get("collection") + "/" + q.Get("rkey")
	c, err := a.tree.Get([]byte(path))
	if err != nil {
		return nil, invalid("record path: %v", err)
	}
	if c == nil || q.Has("cid") && q.Get("cid") != c.String() {
		return nil, &xrpcError{http.StatusBadRequest, "RecordNotFound", "could not locate record: " + path}
	}
	return h.record(a, path, *c)
}

// listRecords answers with the newest record keys first, or the oldest with
// reverse; the cursor is the last record key seen.
func (h *host) listRecords(q url.Values) (any, error) {
	a, err := h.repo(q.Get("repo"))
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(q, 50, 100)
	if err != nil {
		return nil, err
	}
	prefix := q.Get("collection") + "/"
	type item struct {
		path string
		cid  cid.Cid
	}
	var items []item
	ascend(a.tree.Root, []byte(prefix), func(key []byte, value cid.Cid) bool {
		if !strings.HasPrefix(string(key), prefix) {
			return false
		}
		items = append(items, item{string(key), value})
		return true
	})
	reverse, cursor := q.Get("reverse") == "true", q.Get("cursor")
	if !reverse {
		slices.Reverse(items)
	}
	records, last := []repoRecord{}, ""
	for _, it := range items {
		rkey := it.path[len(prefix):]
		if cursor != "" && (reverse && rkey <= cursor || !reverse && rkey >= cursor) {
			continue
		}
		if len(records) == limit {
			return map[string]any{"records": records, "cursor": last}, nil
		}
		r, err := h.record(a, it.path, it.cid)
		if err != nil {
			return nil, err
		}
		records, last = append(records, r), rkey
	}
	return map[string]any{"records": records}, nil
}

func (h *host) describeRepo(q url.Values) (any, error) {
	a, err := h.repo(q.Get("repo"))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"handle": a.handle, "did": a.did, "handleIsCorrect": true, "collections": collections(a),
		"didDoc": newDIDDocument(a.did, a.handle, a.key.multibase(), h.url()),
	}, nil
}

// collections lists what collections a repository has records in.
func collections(a *account) []string {
	found := []string{}
	from := ""
	for {
		next := ""
		ascend(a.tree.Root, []byte(from), func(key []byte, _ cid.Cid) bool {
			next, _, _ = strings.Cut(string(key), "/")
			return false
		})
		if next == "" {
			return found
		}
		found = append(found, next)
		from = next + "0" // the character after the slash
	}
}

func limitOf(q url.Values, standard, most int) (int, error) {
	if !q.Has("limit") {
		return standard, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > most {
		return 0, invalid("limit must be between 1 and %d", most)
	}
	return n, nil
}
