package caller

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
)

const (
	service  = "did:web:layers.example"
	fragment = "#layers_appview"
	method   = syntax.NSID("pub.layers.corpus.getCorpus")
	address  = "192.0.2.1"
)

// network is a directory of accounts whose keys were made for the test.
type network struct {
	*identity.MockDirectory
	looked, purged atomic.Int64
	err            error // of every look-up
}

func (n *network) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	n.looked.Add(1)
	if n.err != nil {
		return nil, n.err
	}
	return n.MockDirectory.LookupDID(ctx, did)
}

func (n *network) Purge(context.Context, syntax.AtIdentifier) error { n.purged.Add(1); return nil }

// account makes an account with a key of either curve.
func (n *network) account(t *testing.T, did syntax.DID, key atcrypto.PrivateKey) {
	t.Helper()
	public, err := key.PublicKey()
	require.NoError(t, err)
	n.Insert(identity.Identity{DID: did, Keys: map[string]identity.VerificationMethod{"atproto": {Type: "Multikey", PublicKeyMultibase: public.Multibase()}}})
}

type world struct {
	*network
	*Callers
	key atcrypto.PrivateKey // of everybody
}

const (
	someone syntax.DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	premium syntax.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
	admin   syntax.DID = "did:web:admin.example"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{network: &network{MockDirectory: identity.NewMockDirectory()}}
	var err error
	w.key, err = atcrypto.GeneratePrivateKeyK256()
	require.NoError(t, err)
	for _, did := range []syntax.DID{someone, premium, admin} {
		w.account(t, did, w.key)
	}
	w.Callers = New(Config{DID: service, Fragment: fragment, Directory: w.network, Admins: []syntax.DID{admin}, Premium: []syntax.DID{premium}})
	return w
}

func (w *world) identify(header string, of syntax.NSID) (traffic.Caller, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return w.Identify(r, address, of)
}

func (w *world) token(t *testing.T, did syntax.DID, audience string, lifetime time.Duration, of syntax.NSID) string {
	t.Helper()
	var lxm *syntax.NSID
	if of != "" {
		lxm = &of
	}
	token, err := auth.SignServiceAuth(did, audience, lifetime, lxm, w.key)
	require.NoError(t, err)
	return token
}

func TestTiers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	from, err := w.identify("", method)
	require.NoError(t, err)
	require.Equal(t, traffic.Caller{Tier: traffic.Anonymous, Address: address}, from)
	for did, tier := range map[syntax.DID]traffic.Tier{someone: traffic.Authenticated, premium: traffic.Premium, admin: traffic.Administrator} {
		for _, audience := range []string{service, service + fragment} {
			for _, scheme := range []string{"Bearer ", "bearer "} {
				from, err := w.identify(scheme+w.token(t, did, audience, time.Minute, method), method)
				require.NoError(t, err)
				require.Equal(t, traffic.Caller{DID: did, Tier: tier, Address: address}, from)
			}
		}
	}
	from, err = w.identify("Bearer "+w.token(t, someone, service, time.Minute, ""), "")
	require.NoError(t, err, "REST has no methods")
	require.Equal(t, traffic.Authenticated, from.Tier)
	p256, err := atcrypto.GeneratePrivateKeyP256()
	require.NoError(t, err)
	w.account(t, someone, p256)
	w.key = p256
	from, err = w.identify("Bearer "+w.token(t, someone, service, time.Minute, method), method)
	require.NoError(t, err)
	require.Equal(t, someone, from.DID)
}

func TestTokensThatDoNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.token(t, admin, service, time.Minute, method)
	parts := strings.Split(good, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
	stranger := newWorld(t)
	for name, c := range map[string]struct{ header, want string }{
		"another scheme":        {"Basic YWRtaW46YWRtaW4=", "AuthenticationRequired"},
		"no token":              {"Bearer ", "AuthenticationRequired"},
		"no JWT":                {"Bearer nonsense", "BadJwt"},
		"unsigned":              {"Bearer " + unsigned, "BadJwtSignature"},
		"another's signature":   {"Bearer " + stranger.token(t, admin, service, time.Minute, method), "BadJwtSignature"},
		"another's claims":      {"Bearer " + parts[0] + "." + strings.Split(w.token(t, someone, service, time.Minute, method), ".")[1] + "." + parts[2], "BadJwtSignature"},
		"expired":               {"Bearer " + w.token(t, admin, service, -time.Hour, method), "ExpiredToken"},
		"for another service":   {"Bearer " + w.token(t, admin, "did:web:other.example", time.Minute, method), "BadJwtAudience"},
		"for another entry":     {"Bearer " + w.token(t, admin, service+"#other", time.Minute, method), "BadJwtAudience"},
		"for another method":    {"Bearer " + w.token(t, admin, service, time.Minute, "pub.layers.corpus.listCorpora"), "BadJwtLexiconMethod"},
		"for no method":         {"Bearer " + w.token(t, admin, service, time.Minute, ""), "BadJwtLexiconMethod"},
		"of an unknown account": {"Bearer " + w.token(t, "did:plc:cccccccccccccccccccccccc", service, time.Minute, method), "BadJwtIss"},
		"of something else":     {"Bearer " + w.token(t, "https://example.com", service, time.Minute, method), "BadJwtIss"},
	} {
		from, err := w.identify(c.header, method)
		answer := xrpc.AsError(err)
		require.Equal(t, http.StatusUnauthorized, answer.Status, name)
		require.Equal(t, c.want, answer.Name, "%s: %v", name, err)
		require.Empty(t, from.DID, name)
		require.Equal(t, traffic.Anonymous, from.Tier, name)
	}
}

func TestKeysThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.err = fmt.Errorf("%w: no route", identity.ErrDIDResolutionFailed)
	_, err := w.identify("Bearer "+w.token(t, someone, service, time.Minute, method), method)
	require.Equal(t, http.StatusServiceUnavailable, xrpc.AsError(err).Status, "the token may well hold")
	w.err = nil
	_, err = w.identify("Bearer "+w.token(t, someone, service, time.Minute, method), method)
	require.NoError(t, err)
}

// TestForgeriesCostLittle counts what somebody who sends forged tokens makes us do.
func TestForgeriesCostLittle(t *testing.T) {
	t.Parallel()
	w, stranger := newWorld(t), newWorld(t)
	forged := "Bearer " + stranger.token(t, someone, service, time.Minute, method)
	var last error
	for range 200 {
		_, last = w.identify(forged, method)
	}
	require.Equal(t, int64(1), w.purged.Load(), "keys are not looked up anew for each")
	require.Less(t, w.looked.Load(), int64(4*(wrongBurst+20)))
	answer := xrpc.AsError(last)
	require.Equal(t, http.StatusTooManyRequests, answer.Status)
	require.Positive(t, answer.RetryAfter)

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+w.token(t, someone, service, time.Minute, method))
	from, err := w.Identify(r, "192.0.2.2", method)
	require.NoError(t, err, "others are not concerned")
	require.Equal(t, someone, from.DID)
	from, err = w.identify("", method)
	require.NoError(t, err)
	require.Equal(t, traffic.Anonymous, from.Tier)
}

func TestClientThatGoesAwayIsNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.err = errors.New("canceled")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+w.token(t, someone, service, time.Minute, method))
	_, err := w.Identify(r, address, method)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, w.wrong.Contains(address))
}
