package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/bluesky-social/indigo/atproto/atclient"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Move takes the account to another PDS under the handle name + [PDS].Domain, as
// its owner would (https://atproto.com/guides/account-migration): repository, DID
// document with the new PDS's signing key, activation there, deactivation here.
// The account is the one on the new PDS from then on.
func (n *Network) Move(ctx context.Context, a *Account, to *PDS, name string) error {
	there, err := n.arrive(ctx, a, to, name)
	if err != nil {
		return err
	}
	archive, err := a.Export(ctx)
	if err != nil {
		return err
	}
	if err := there.Import(ctx, archive); err != nil {
		return err
	}
	if err := n.repoint(ctx, a, there); err != nil {
		return wrap(err, "change the DID document of", a.DID)
	}
	if err := there.Activate(ctx); err != nil {
		return err
	}
	if err := a.Deactivate(ctx); err != nil {
		return err
	}
	*a = *there
	return nil
}

// arrive makes an account of the same DID, not active yet, on another PDS.
func (n *Network) arrive(ctx context.Context, a *Account, to *PDS, name string) (*Account, error) {
	var grant struct{ Token string }
	err := a.client.Get(ctx, "com.atproto.server.getServiceAuth", map[string]any{
		"aud": to.DID.String(), "lxm": "com.atproto.server.createAccount",
	}, &grant)
	if err != nil {
		return nil, wrap(err, "ask leave to move", a.DID)
	}
	client := to.client()
	client.Auth = session(grant.Token)
	var made struct {
		Access string `json:"accessJwt"`
	}
	handle := syntax.Handle(name + to.Domain)
	err = client.Post(ctx, "com.atproto.server.createAccount", map[string]any{
		"did": a.DID, "handle": handle, "email": name + "@" + to.Domain[1:], "password": rand.Text(),
	}, &made)
	if err != nil {
		return nil, wrap(err, "create account", handle)
	}
	client = to.client()
	client.Auth = session(made.Access)
	return &Account{DID: a.DID, Handle: handle, PDS: to, client: client}, nil
}

// repoint signs the change of the DID document that the new PDS asks for, with the
// rotation key of the old one, and submits it (https://web.plc.directory/spec/v0.1/did-plc).
func (n *Network) repoint(ctx context.Context, a, there *Account) error {
	var asked map[string]any
	if err := there.client.Get(ctx, "com.atproto.identity.getRecommendedDidCredentials", nil, &asked); err != nil {
		return err
	}
	var last map[string]any
	if err := n.plc(ctx, http.MethodGet, "/"+a.DID.String()+"/log/last", nil, &last); err != nil {
		return err
	}
	encoded, err := atdata.MarshalCBOR(last)
	if err != nil {
		return fmt.Errorf("encode the last operation: %w", err)
	}
	prev, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(encoded)
	if err != nil {
		return fmt.Errorf("name the last operation: %w", err)
	}
	operation := map[string]any{"type": "plc_operation", "prev": prev.String()}
	for _, field := range []string{"rotationKeys", "verificationMethods", "alsoKnownAs", "services"} {
		operation[field] = asked[field]
	}
	if operation["sig"], err = a.PDS.sign(operation); err != nil {
		return err
	}
	return n.plc(ctx, http.MethodPost, "/"+a.DID.String(), operation, nil)
}

// sign signs a PLC operation with the PDS's rotation key.
func (p *PDS) sign(operation map[string]any) (string, error) {
	secret, err := hex.DecodeString(p.RotationKey)
	if err != nil {
		return "", fmt.Errorf("read the rotation key: %w", err)
	}
	key, err := atcrypto.ParsePrivateBytesK256(secret)
	if err != nil {
		return "", fmt.Errorf("read the rotation key: %w", err)
	}
	encoded, err := atdata.MarshalCBOR(operation)
	if err != nil {
		return "", fmt.Errorf("encode the operation: %w", err)
	}
	signature, err := key.HashAndSign(encoded)
	return base64.RawURLEncoding.EncodeToString(signature), err
}

// host is the address of the PDS that an account's DID document names.
func (n *Network) host(ctx context.Context, did string) (string, error) {
	var document struct {
		Service []struct {
			ID       string `json:"id"`
			Endpoint string `json:"serviceEndpoint"`
		} `json:"service"`
	}
	if err := n.plc(ctx, http.MethodGet, "/"+did, nil, &document); err != nil {
		return "", wrap(err, "look up the host of", did)
	}
	for _, service := range document.Service {
		if service.ID == "#atproto_pds" {
			return service.Endpoint, nil
		}
	}
	return "", fmt.Errorf("%s names no PDS", did)
}

// plc asks the PLC directory.
func (n *Network) plc(ctx context.Context, method, path string, body, answer any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, n.PLC+path, &content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the PLC directory: %s: %s", res.Status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	return err
}

// Export returns the repository as its PDS serves it, a CAR.
func (a *Account) Export(ctx context.Context) ([]byte, error) {
	req := atclient.NewAPIRequest(http.MethodGet, "com.atproto.sync.getRepo", nil)
	req.QueryParams = url.Values{"did": {a.DID.String()}}
	archive, err := a.do(ctx, req)
	return archive, wrap(err, "export", a.DID)
}

// Import makes the repository on the PDS what an exported one holds. The stream
// hears nothing of it: to it, whatever differs was lost.
func (a *Account) Import(ctx context.Context, archive []byte) error {
	req := atclient.NewAPIRequest(http.MethodPost, "com.atproto.repo.importRepo", bytes.NewReader(archive))
	req.Headers.Set("Content-Type", "application/vnd.ipld.car")
	_, err := a.do(ctx, req)
	return wrap(err, "import", a.DID)
}
