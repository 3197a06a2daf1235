// Package directory resolves the network's identities: DIDs to their documents,
// handles to their DIDs. Its look-ups, redirects included, never reach loopback,
// private or link-local addresses unless that is asked for.
package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/util/ssrf"
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
	client := Client(cfg.AllowPrivate)
	base := &identity.BaseDirectory{
		PLCURL:                 cfg.PLCURL,
		HTTPClient:             *client,
		Resolver:               net.Resolver{PreferGo: true},
		UserAgent:              cfg.UserAgent,
		SkipHandleVerification: true,
	}
	return &Directory{
		CacheDirectory: identity.NewCacheDirectory(base, cacheSize, cacheTTL, errorTTL, cacheTTL),
		base:           base,
		client:         client,
		private:        cfg.AllowPrivate,
		hosts:          cfg.PDSHosts,
	}
}

// Client makes the HTTP client for every request that the network's data leads to.
// Its answers are cut off at a megabyte.
func Client(allowPrivate bool) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if !allowPrivate {
		transport = ssrf.PublicOnlyTransport()
	}
	return &http.Client{Transport: limited{transport}, Timeout: clientTime}
}

// limited bounds the body of every answer.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxBody), response.Body}
	return response, nil
}

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
