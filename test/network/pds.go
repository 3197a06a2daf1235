package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atclient"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// PDS is one of the network's two.
type PDS struct {
	URL           string     `json:"url"` // http://localhost:PORT, as in DID documents
	DID           syntax.DID `json:"did"`
	Domain        string     `json:"domain"` // ends its accounts' handles: .pds1.test
	AdminPassword string     `json:"adminPassword"`
	RotationKey   string     `json:"rotationKey"` // K-256, hex: changes its accounts' DID documents
}

// Record is a record as a PDS answers it.
type Record struct {
	URI   syntax.ATURI    `json:"uri"`
	CID   syntax.CID      `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// WebsocketURL is the base URL of the PDS's event stream.
func (p *PDS) WebsocketURL() string { return "ws" + strings.TrimPrefix(p.URL, "http") }

// GetRecord returns the record from the account's repository on this PDS. An error
// of the PDS is an [atclient.APIError].
func (p *PDS) GetRecord(ctx context.Context, key record.Key) (Record, error) {
	var r Record
	err := p.client().Get(ctx, "com.atproto.repo.getRecord", map[string]any{
		"repo": key.DID.String(), "collection": key.Collection.String(), "rkey": key.Rkey.String(),
	}, &r)
	return r, wrap(err, "get", key)
}

// ListRecords returns every record of the collection in the repository, the newest
// record key first.
func (p *PDS) ListRecords(ctx context.Context, repo syntax.DID, collection syntax.NSID) ([]Record, error) {
	var all []Record
	params := map[string]any{"repo": repo.String(), "collection": collection.String(), "limit": 100}
	for {
		var page struct {
			Records []Record `json:"records"`
			Cursor  string   `json:"cursor"`
		}
		if err := p.client().Get(ctx, "com.atproto.repo.listRecords", params, &page); err != nil {
			return nil, wrap(err, "list", collection)
		}
		all = append(all, page.Records...)
		if page.Cursor == "" {
			return all, nil
		}
		params["cursor"] = page.Cursor
	}
}

// ResolveHandle asks the PDS for the DID of a handle of its own.
func (p *PDS) ResolveHandle(ctx context.Context, handle syntax.Handle) (syntax.DID, error) {
	var answer struct {
		DID syntax.DID `json:"did"`
	}
	err := p.client().Get(ctx, "com.atproto.identity.resolveHandle", map[string]any{"handle": handle.String()}, &answer)
	return answer.DID, wrap(err, "resolve", handle)
}

// listRepos lists every repository, as com.atproto.sync.listRepos does.
func (p *PDS) listRepos(ctx context.Context) ([]any, error) {
	var all []any
	params := map[string]any{"limit": 500}
	for {
		var page struct {
			Repos  []any  `json:"repos"`
			Cursor string `json:"cursor"`
		}
		if err := p.client().Get(ctx, "com.atproto.sync.listRepos", params, &page); err != nil {
			return nil, wrap(err, "list the repositories of", p.URL)
		}
		all = append(all, page.Repos...)
		if page.Cursor == "" || len(page.Repos) == 0 {
			return all, nil
		}
		params["cursor"] = page.Cursor
	}
}

// serves tells whether an account is active here.
func (p *PDS) serves(ctx context.Context, account syntax.DID) bool {
	var status struct{ Active bool }
	err := p.client().Get(ctx, "com.atproto.sync.getRepoStatus", map[string]any{"did": account.String()}, &status)
	return err == nil && status.Active
}

// TakeDown has the PDS's administrator take the account down, or undo that.
func (p *PDS) TakeDown(ctx context.Context, account syntax.DID, down bool) error {
	err := p.admin().Post(ctx, "com.atproto.admin.updateSubjectStatus", map[string]any{
		"subject":  map[string]any{"$type": "com.atproto.admin.defs#repoRef", "did": account},
		"takedown": map[string]any{"applied": down},
	}, nil)
	return wrap(err, "take down", account)
}

// DeleteAccount has the PDS's administrator delete the account and its repository.
func (p *PDS) DeleteAccount(ctx context.Context, account syntax.DID) error {
	err := p.admin().Post(ctx, "com.atproto.admin.deleteAccount", map[string]any{"did": account}, nil)
	return wrap(err, "delete", account)
}

func (p *PDS) client() *atclient.APIClient { return atclient.NewAPIClient(p.URL) }

func (p *PDS) admin() *atclient.APIClient {
	return atclient.NewAdminClient(p.URL, p.AdminPassword)
}

// session authorises an account's requests; it lasts two hours.
type session string

// DoWithAuth implements [atclient.AuthMethod].
func (s session) DoWithAuth(c *http.Client, req *http.Request, _ syntax.NSID) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+string(s))
	return c.Do(req)
}

func wrap(err error, verb string, object any) error {
	if err != nil {
		return fmt.Errorf("%s %v: %w", verb, object, err)
	}
	return nil
}
