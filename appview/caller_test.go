package appview

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth"
	identities "github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestTokensAndQuotas has an account and a client ask a whole server.
func TestTokensAndQuotas(t *testing.T) {
	t.Parallel()
	redisURL := os.Getenv("LAYERS_TEST_REDIS_URL")
	require.NotEmpty(t, redisURL, "LAYERS_TEST_REDIS_URL: run `make test`")
	quotas, err := traffic.NewQuotas(redisURL, nil, traffic.FailOpen, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, quotas.Close()) })
	quotas.Within(time.Minute) // whom Redis does not count in time, nobody does
	key, err := atcrypto.GeneratePrivateKeyK256()
	require.NoError(t, err)
	public, err := key.PublicKey()
	require.NoError(t, err)
	did := syntax.DID(fmt.Sprintf("did:web:a%x.example", rand.Uint64()))
	directory := identities.NewMockDirectory()
	directory.Insert(identities.Identity{DID: did, Keys: map[string]identities.VerificationMethod{"atproto": {Type: "Multikey", PublicKeyMultibase: public.Multibase()}}})
	notFound := func(context.Context) error { return store.ErrNotFound }
	b := startWith(t, Config{PublicURL: "https://layers.example", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		faulty{notFound}, Deps{Quotas: quotas, Directory: directory})
	method := syntax.NSID("pub.layers.corpus.getCorpus")
	token, err := auth.SignServiceAuth(did, "did:web:layers.example", time.Minute, &method, key)
	require.NoError(t, err)

	network := fmt.Sprintf("2001:db8:%x:%x", rand.N(0xffff), rand.N(0xffff))
	got := b.do(t, "GET", aGet, "X-Forwarded-For", network+"::1")
	require.Equal(t, http.StatusBadRequest, got.status, got.body)
	require.Equal(t, "600", got.header.Get("RateLimit-Limit"))
	used := func(got answer) int {
		var most, left int
		_, err := fmt.Sscan(got.header.Get("X-RateLimit-Limit")+" "+got.header.Get("X-RateLimit-Remaining"), &most, &left)
		require.NoError(t, err)
		return most - left
	}
	require.InDelta(t, 1, used(got), 1) // Redis reckons in fractions
	for i := range 400 {                // addresses of the same network; ten come free each second
		from := traffic.Caller{Tier: traffic.Anonymous, Address: fmt.Sprintf("%s::%x:3", network, i)}
		require.NoError(t, quotas.Take(t.Context(), traffic.Records, from, http.Header{}))
	}
	require.Greater(t, used(b.do(t, "GET", aGet, "X-Forwarded-For", network+"::2")), 2)

	got = b.do(t, "GET", aGet, "X-Forwarded-For", network+"::1", "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusBadRequest, got.status, got.body)
	require.Equal(t, "3000", got.header.Get("RateLimit-Limit"))
	require.InDelta(t, 1, used(got), 1, "the account has its own")

	got = b.do(t, "GET", aGet, "Authorization", "Bearer "+token+"x")
	require.Equal(t, http.StatusUnauthorized, got.status)
	require.Equal(t, "Bearer", got.header.Get("WWW-Authenticate"))
	require.NotEmpty(t, got.errorName(t))
	require.Empty(t, got.header.Get("RateLimit-Limit"))
	for _, path := range []string{"/health", "/ready", "/.well-known/did.json"} {
		got := b.do(t, "GET", path, "Authorization", "Bearer nonsense")
		require.Equal(t, http.StatusOK, got.status, path)
		require.Empty(t, got.header.Get("RateLimit-Limit"), path)
	}
}
