// Package directory resolves the network's identities: DIDs to their documents,
// handles to their DIDs. Look-ups that the network's data leads to, redirects
// included, never reach loopback, private or link-local addresses unless that is
// asked for; the PLC directory's address is the operator's choice.
package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Config says whom to ask. PLCURL has no trailing slash.
type Config struct {
	PLCURL       string
	AllowPrivate bool // tests and development: private addresses, and handles by asking PDSHosts
	UserAgent    string
	// PDSHosts are asked to resolve handles when AllowPrivate is set, since the
	// handles of a network on loopback are in no DNS.
	PDSHosts []string
}

const (
	cacheSize  = 100_000
	cacheTTL   = 24 * time.Hour
	errorTTL   = 30 * time.Second
	maxBody    = 1 << 20 // bytes of any answer
	clientTime = 15 * time.Second
)

// Directory is a cached resolver of identities. Documents are trusted for a day or
// until Purge; the firehose's #identity events are what keeps them fresh.
type Directory struct {
	*identity.CacheDirectory
	base    *identity.BaseDirectory
	client  *http.Client
	private bool
	hosts   []string
}

// New makes a directory.
func New(cfg Config) *Directory {
	return newDirectory(cfg, Client(cfg.AllowPrivate))
}

func newDirectory(cfg Config, client *http.Client) *Directory {
	base := baseDirectory(cfg, client)
	base.Resolver.PreferGo = true
	plc := operatorClient()
	plc.Transport = tombstones{plc.Transport}
	resolver := resolver{network: base, plc: baseDirectory(cfg, plc)}
	return &Directory{
		CacheDirectory: identity.NewCacheDirectory(resolver, cacheSize, cacheTTL, errorTTL, cacheTTL),
		base:           base,
		client:         client,
		private:        cfg.AllowPrivate,
		hosts:          cfg.PDSHosts,
	}
}

func baseDirectory(cfg Config, client *http.Client) *identity.BaseDirectory {
	return &identity.BaseDirectory{PLCURL: cfg.PLCURL, HTTPClient: *client, UserAgent: cfg.UserAgent, SkipHandleVerification: true}
}

// operatorClient asks hosts that the operator has chosen: wherever they are, through
// a proxy if there is one, but to no other host that they may point to.
func operatorClient() *http.Client {
	client := Client(true)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// ErrTombstoned is wrapped by the look-up of a DID that the PLC directory says is
// deleted for good. That it does not know a DID says nothing of the kind.
var ErrTombstoned = fmt.Errorf("the DID is tombstoned: %w", identity.ErrDIDNotFound)

// tombstones tells by the directory's answers which DIDs are deleted: with 410 Gone.
type tombstones struct{ http.RoundTripper }

func (t tombstones) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusGone {
		return response, err
	}
	_ = response.Body.Close() // nothing was written
	return nil, ErrTombstoned
}

// resolver asks the PLC directory for what it knows, and the hosts that DIDs and
// handles name for the rest.
type resolver struct{ plc, network *identity.BaseDirectory }

func (r resolver) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	if did.Method() == "plc" {
		return r.plc.LookupDID(ctx, did)
	}
	return r.network.LookupDID(ctx, did)
}

func (r resolver) LookupHandle(ctx context.Context, handle syntax.Handle) (*identity.Identity, error) {
	did, err := r.network.ResolveHandle(ctx, handle)
	if err != nil {
		return nil, err
	}
	return r.LookupDID(ctx, did)
}

func (r resolver) Lookup(ctx context.Context, id syntax.AtIdentifier) (*identity.Identity, error) {
	if did, err := id.AsDID(); err == nil {
		return r.LookupDID(ctx, did)
	}
	handle, err := id.AsHandle()
	if err != nil {
		return nil, err
	}
	return r.LookupHandle(ctx, handle)
}

// Purge has nothing to forget.
func (resolver) Purge(context.Context, syntax.AtIdentifier) error { return nil }

// ResolveHandle finds the DID that a handle names and checks that the DID's
// document names the handle in turn.
func (d *Directory) ResolveHandle(ctx context.Context, handle syntax.Handle) (syntax.DID, error) {
	handle = handle.Normalize()
	did, err := d.resolve(ctx, handle)
	if err != nil {
		return "", fmt.Errorf("resolving handle %s: %w", handle, err)
	}
	account, err := d.LookupDID(ctx, did)
	if err != nil {
		return "", fmt.Errorf("looking up %s, which handle %s names: %w", did, handle, err)
	}
	if declared, err := account.DeclaredHandle(); err != nil || declared != handle {
		return "", fmt.Errorf("handle %s names %s, whose document names %q: %w", handle, did, declared, identity.ErrHandleMismatch)
	}
	return did, nil
}

func (d *Directory) resolve(ctx context.Context, handle syntax.Handle) (syntax.DID, error) {
	if !d.private {
		return d.base.ResolveHandle(ctx, handle)
	}
	return d.askHosts(ctx, d.hosts, handle)
}

// VerifiedHandle is the handle that the account's document declares, if that handle
// names the account in turn; handle.invalid otherwise.
func (d *Directory) VerifiedHandle(ctx context.Context, did syntax.DID) (syntax.Handle, error) {
	account, err := d.LookupDID(ctx, did)
	if err != nil {
		return "", fmt.Errorf("looking up %s: %w", did, err)
	}
	declared, err := account.DeclaredHandle()
	if err != nil {
		return syntax.HandleInvalid, nil //nolint:nilerr // declares none
	}
	var named syntax.DID
	if d.private {
		named, err = d.askHosts(ctx, []string{account.PDSEndpoint()}, declared)
	} else {
		named, err = d.base.ResolveHandle(ctx, declared)
	}
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("resolving handle %s: %w", declared, err)
	}
	if err != nil || named != did {
		return syntax.HandleInvalid, nil //nolint:nilerr // the handle does not lead back
	}
	return declared, nil
}

func (d *Directory) askHosts(ctx context.Context, hosts []string, handle syntax.Handle) (syntax.DID, error) {
	for _, host := range hosts {
		if did, err := d.askHost(ctx, host, handle); err == nil {
			return did, nil
		}
	}
	return "", identity.ErrHandleNotFound
}

// askHost is com.atproto.identity.resolveHandle on one host.
func (d *Directory) askHost(ctx context.Context, host string, handle syntax.Handle) (syntax.DID, error) {
	address := host + "/xrpc/com.atproto.identity.resolveHandle?" + url.Values{"handle": {handle.String()}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", host, err)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", host, err)
	}
	defer response.Body.Close()
	var answer struct {
		DID syntax.DID `json:"did"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking %s: status %d: %w", host, response.StatusCode, identity.ErrHandleNotFound)
	}
	return answer.DID, nil
}
