package traffic

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/test/rig"
)

func redisURL(t *testing.T) string {
	t.Helper()
	url := os.Getenv("LAYERS_TEST_REDIS_URL")
	if url == "" {
		t.Fatal("LAYERS_TEST_REDIS_URL is not set: run `make test`, which starts the stores that tests need")
	}
	return url
}

func newQuotas(t *testing.T, url string, policy Policy) *Quotas {
	t.Helper()
	q, err := NewQuotas(url, nil, policy, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	q.Within(time.Minute) // whom Redis does not count in time, nobody does
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

// account is one that nobody has counted before.
func account(tier Tier) Caller { return Caller{DID: syntax.DID("did:web:" + rand.Text()), Tier: tier} }

func TestQuotasOfTiersAndGroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		group Group
		want  []int
	}{
		{Search, []int{60, 300, 1000, 5000}}, {Graph, []int{60, 300, 1000, 5000}}, {Statistics, []int{60, 300, 1000, 5000}},
		{Records, []int{600, 3000, 10_000, 50_000}}, {References, []int{600, 3000, 10_000, 50_000}}, {Complete, []int{10, 50, 166, 833}},
	} {
		for i, tier := range []Tier{Anonymous, Authenticated, Premium, Administrator} {
			require.Equal(t, c.want[i], quota(c.group, tier), "%s %s", c.group, tier)
		}
	}
}

func TestBeyondTheQuotaIsRefused(t *testing.T) {
	t.Parallel()
	replicas := []*Quotas{newQuotas(t, redisURL(t), FailOpen), newQuotas(t, redisURL(t), FailOpen)}
	caller := account(Anonymous)
	header := http.Header{}
	var refusal error
	// While the requests are made, some come free again: one each six seconds.
	began, allowed := time.Now(), 0
	for i := 0; refusal == nil; i++ {
		refusal = replicas[i%2].Take(t.Context(), Complete, caller, header)
		if refusal == nil {
			allowed++
		}
		require.Less(t, i, 1000)
	}
	free := int(time.Since(began)/(6*time.Second)) + 1
	require.GreaterOrEqual(t, allowed, 10)
	require.LessOrEqual(t, allowed, 10+free, "replicas count together")
	answer := xrpc.AsError(refusal)
	require.Equal(t, http.StatusTooManyRequests, answer.Status)
	require.Equal(t, "RateLimitExceeded", answer.Name)
	require.Greater(t, answer.RetryAfter, time.Duration(0))
	require.LessOrEqual(t, answer.RetryAfter, 6*time.Second)
	for _, name := range []string{"X-RateLimit-Limit", "RateLimit-Limit"} {
		require.Equal(t, "10", header.Get(name))
	}
	require.Equal(t, "0", header.Get("X-RateLimit-Remaining"))
	require.Equal(t, "0", header.Get("RateLimit-Remaining"))
	require.Equal(t, "10;w=60", header.Get("RateLimit-Policy"))
	require.NotEmpty(t, header.Get("RateLimit-Reset"))
	require.NotEmpty(t, header.Get("X-RateLimit-Reset"))
	require.Equal(t, 1.0, value(t, replicas[0].refused)+value(t, replicas[1].refused))

	require.NoError(t, replicas[0].Take(t.Context(), Search, caller, header), "groups are counted apart")
	require.NoError(t, replicas[0].Take(t.Context(), Complete, account(Anonymous), header), "so are callers")
	require.NoError(t, replicas[0].Take(t.Context(), Open, caller, header))
}

func TestCallersAreCountedByAccountOrNetwork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from Caller
		want string
	}{
		{Caller{DID: "did:web:a.example", Address: "192.0.2.1"}, "did:web:a.example"},
		{Caller{Address: "192.0.2.1"}, "192.0.2.1"},
		{Caller{Address: "::ffff:192.0.2.1"}, "192.0.2.1"},
		{Caller{Address: "2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"},
		{Caller{Address: "2001:db8:1:2:ffff::1"}, "2001:db8:1:2::/64"},
		{Caller{Address: "fe80::1%eth0"}, "fe80::/64"},
		{Caller{Address: "nonsense"}, "unknown"},
	} {
		require.Equal(t, c.want, c.from.name(), fmt.Sprint(c.from))
	}
}

func TestWithoutRedisThePolicyDecides(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{FailOpen, FailClosed} {
		proxy, url := rig.Before(t, redisURL(t))
		q := newQuotas(t, url, policy)
		q.redis.Pause(time.Millisecond)
		caller := account(Anonymous)
		require.NoError(t, q.Take(t.Context(), Search, caller, http.Header{}))
		q.Within(50 * time.Millisecond) // from now on it is away at times
		for _, fault := range []func(){proxy.Cut, proxy.Vanish} {
			fault()
			for range 3 {
				err := q.Take(t.Context(), Search, caller, http.Header{})
				if policy == FailOpen {
					require.NoError(t, err)
					continue
				}
				require.Equal(t, http.StatusServiceUnavailable, xrpc.AsError(err).Status)
				require.Positive(t, xrpc.AsError(err).RetryAfter)
			}
			proxy.Restore()
			require.Eventually(t, func() bool {
				header := http.Header{}
				return q.Take(t.Context(), Search, caller, header) == nil && header.Get("RateLimit-Limit") == "60"
			}, time.Minute, 5*time.Millisecond, "it counts again")
		}
	}
}

func TestOffCountsNobody(t *testing.T) {
	t.Parallel()
	q, err := NewQuotas(redisURL(t), nil, Off, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	header := http.Header{}
	for range 100 {
		require.NoError(t, q.Take(t.Context(), Complete, account(Anonymous), header))
	}
	require.Empty(t, header)
}
