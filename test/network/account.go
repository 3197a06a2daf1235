package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/atclient"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Account is an account with a session on its PDS.
type Account struct {
	DID    syntax.DID
	Handle syntax.Handle
	PDS    *PDS
	client *atclient.APIClient
}

// Write is one change of a batch. Value is the record in the data model's JSON
// form; nil for a delete.
type Write struct {
	Action     record.Action
	Collection syntax.NSID
	Rkey       syntax.RecordKey
	Value      any
}

// CreateAccount makes an account with the handle name + [PDS].Domain.
func (p *PDS) CreateAccount(ctx context.Context, name string) (*Account, error) {
	var answer struct {
		DID    syntax.DID    `json:"did"`
		Handle syntax.Handle `json:"handle"`
		Access string        `json:"accessJwt"`
	}
	client := p.client()
	err := client.Post(ctx, "com.atproto.server.createAccount", map[string]any{
		"handle": name + p.Domain, "email": name + "@" + p.Domain[1:], "password": rand.Text(),
	}, &answer)
	if err != nil {
		return nil, wrap(err, "create account", name)
	}
	client.Auth = session(answer.Access)
	return &Account{DID: answer.DID, Handle: answer.Handle, PDS: p, client: client}, nil
}

// Key names a record in the account's repository.
func (a *Account) Key(collection syntax.NSID, rkey syntax.RecordKey) record.Key {
	return record.Key{DID: a.DID, Collection: collection, Rkey: rkey}
}

// CreateRecord writes a new record, under a key that the PDS makes, and returns
// its address and CID. The value is in the data model's JSON form.
func (a *Account) CreateRecord(ctx context.Context, collection syntax.NSID, value any) (Record, error) {
	var r Record
	err := a.client.Post(ctx, "com.atproto.repo.createRecord", map[string]any{
		"repo": a.DID, "collection": collection, "record": value,
	}, &r)
	return r, wrap(err, "create record in", collection)
}

// PutRecord writes the record under that key, whether or not there is one.
func (a *Account) PutRecord(ctx context.Context, collection syntax.NSID, rkey syntax.RecordKey, value any) (Record, error) {
	var r Record
	err := a.client.Post(ctx, "com.atproto.repo.putRecord", map[string]any{
		"repo": a.DID, "collection": collection, "rkey": rkey, "record": value,
	}, &r)
	return r, wrap(err, "put", a.Key(collection, rkey))
}

// DeleteRecord deletes the record; no error if there is none.
func (a *Account) DeleteRecord(ctx context.Context, collection syntax.NSID, rkey syntax.RecordKey) error {
	err := a.client.Post(ctx, "com.atproto.repo.deleteRecord", map[string]any{
		"repo": a.DID, "collection": collection, "rkey": rkey,
	}, nil)
	return wrap(err, "delete", a.Key(collection, rkey))
}

// ApplyWrites makes up to 200 changes in one commit.
func (a *Account) ApplyWrites(ctx context.Context, writes []Write) error {
	list := make([]map[string]any, len(writes))
	for i, w := range writes {
		list[i] = map[string]any{
			"$type":      "com.atproto.repo.applyWrites#" + string(w.Action),
			"collection": w.Collection,
			"rkey":       w.Rkey,
		}
		if w.Action != record.Delete {
			list[i]["value"] = w.Value
		}
	}
	err := a.client.Post(ctx, "com.atproto.repo.applyWrites", map[string]any{"repo": a.DID, "writes": list}, nil)
	return wrap(err, "apply writes to", a.DID)
}

// UploadBlob uploads a blob and returns the value that a record refers to it by.
func (a *Account) UploadBlob(ctx context.Context, contentType string, content []byte) (json.RawMessage, error) {
	req := atclient.NewAPIRequest(http.MethodPost, "com.atproto.repo.uploadBlob", bytes.NewReader(content))
	req.Headers.Set("Content-Type", contentType)
	body, err := a.do(ctx, req)
	if err != nil {
		return nil, wrap(err, "upload", contentType)
	}
	var answer struct {
		Blob json.RawMessage `json:"blob"`
	}
	err = json.Unmarshal(body, &answer)
	return answer.Blob, wrap(err, "upload", contentType)
}

// UpdateHandle changes the account's handle to name + [PDS].Domain.
func (a *Account) UpdateHandle(ctx context.Context, name string) error {
	handle := syntax.Handle(name + a.PDS.Domain)
	err := a.client.Post(ctx, "com.atproto.identity.updateHandle", map[string]any{"handle": handle}, nil)
	if err == nil {
		a.Handle = handle
	}
	return wrap(err, "change handle to", handle)
}

// Deactivate deactivates the account, as its owner may.
func (a *Account) Deactivate(ctx context.Context) error {
	return wrap(a.client.Post(ctx, "com.atproto.server.deactivateAccount", map[string]any{}, nil), "deactivate", a.DID)
}

// Activate undoes [Account.Deactivate].
func (a *Account) Activate(ctx context.Context) error {
	_, err := a.do(ctx, atclient.NewAPIRequest(http.MethodPost, "com.atproto.server.activateAccount", nil))
	return wrap(err, "activate", a.DID)
}

// do sends a request whose body is not JSON, and returns the answer's body.
func (a *Account) do(ctx context.Context, req *atclient.APIRequest) ([]byte, error) {
	res, err := a.client.Do(ctx, req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, err
}
