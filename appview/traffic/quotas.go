package traffic

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/go-redis/redis_rate/v10"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/volatile"
)

// Tier is what a caller may ask for.
type Tier string

// The tiers.
const (
	Anonymous     Tier = "anonymous"
	Authenticated Tier = "authenticated"
	Premium       Tier = "premium"
	Administrator Tier = "admin"
)

// Caller is who asks: an account, or a client at an address.
type Caller struct {
	DID     syntax.DID // empty for Anonymous
	Tier    Tier
	Address string // of the client, as trusted proxies tell it
}

// perMinute is how often a caller may search in a minute.
var perMinute = map[Tier]int{Anonymous: 60, Authenticated: 300, Premium: 1000, Administrator: 5000}

// quota is how many requests of a group a caller may make in a minute. Gets and lists
// are cheap, and clients walk through pages without waiting; completions are dear for
// the little that they tell.
func quota(group Group, tier Tier) int {
	n := perMinute[tier]
	switch group {
	case Records, References:
		return 10 * n
	case Complete:
		return n / 6
	}
	return n
}

// Policy says what becomes of requests while Redis is away.
type Policy string

// The policies.
const (
	FailOpen   Policy = "open"   // they are let in
	FailClosed Policy = "closed" // they are answered 503
	Off        Policy = "off"    // nobody counts at any time
)

// Quotas count the requests of each caller, in Redis, so that all replicas count
// together. A caller may make a minute's requests at once, and then as many as the
// minute's rate lets come again.
type Quotas struct {
	redis   *volatile.Client
	policy  Policy
	refused *prometheus.CounterVec
	uncount prometheus.Counter
}

// NewQuotas makes quotas; it does not connect. Without them (Off) it returns nil, which
// lets everybody in.
func NewQuotas(redisURL string, roots *x509.CertPool, policy Policy, registry prometheus.Registerer, logger *slog.Logger) (*Quotas, error) {
	if policy == Off || redisURL == "" {
		return nil, nil
	}
	client, err := volatile.Open(redisURL, roots, logger)
	if err != nil {
		return nil, err
	}
	q := &Quotas{
		redis: client, policy: policy,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "layers_http_rate_limited_total", Help: "Requests answered with 429.",
		}, []string{"group", "tier"}),
		uncount: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "layers_http_rate_uncounted_total", Help: "Requests that could not be counted since Redis was away.",
		}),
	}
	return q, errors.Join(registry.Register(q.refused), registry.Register(q.uncount))
}

// Close ends the connections to Redis.
func (q *Quotas) Close() error {
	if q == nil {
		return nil
	}
	return q.redis.Close()
}

// Within sets how long Redis may take to count a request; the default is 100 ms.
func (q *Quotas) Within(d time.Duration) { q.redis.Within(d) }

// Take counts a request, and says in the answer's header how the caller stands. An
// error is the answer: 429, or 503 where Redis is away and the policy says so.
func (q *Quotas) Take(ctx context.Context, group Group, from Caller, header http.Header) error {
	if q == nil || group == Open {
		return nil
	}
	limit := redis_rate.PerMinute(quota(group, from.Tier))
	var counted *redis_rate.Result
	err := q.redis.Do(ctx, func(ctx context.Context, client *redis.Client) (err error) {
		counted, err = redis_rate.NewLimiter(client).Allow(ctx, string(group)+":"+from.name(), limit)
		return err
	})
	switch {
	case errors.Is(err, volatile.ErrAway) && q.policy == FailOpen:
		q.uncount.Inc()
		return nil
	case errors.Is(err, volatile.ErrAway):
		q.uncount.Inc()
		return &xrpc.Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: askAgain, Message: "requests cannot be counted at the moment; try again"}
	case err != nil:
		return err
	}
	tell(header, counted)
	if counted.Allowed > 0 {
		return nil
	}
	q.refused.WithLabelValues(string(group), string(from.Tier)).Inc()
	return &xrpc.Error{
		Status: http.StatusTooManyRequests, Name: "RateLimitExceeded", RetryAfter: max(counted.RetryAfter, time.Second),
		Message: fmt.Sprintf("%d requests of the group %s in a minute are as many as the tier %s has", limit.Rate, group, from.Tier),
	}
}

// tell writes both forms of the headers: what is widespread, and what the IETF drafts.
func tell(header http.Header, r *redis_rate.Result) {
	seconds := int64(math.Ceil(r.ResetAfter.Seconds()))
	for name, value := range map[string]int64{
		"X-Ratelimit-Limit": int64(r.Limit.Rate), "X-Ratelimit-Remaining": int64(r.Remaining), "X-Ratelimit-Reset": time.Now().Unix() + seconds,
		"Ratelimit-Limit": int64(r.Limit.Rate), "Ratelimit-Remaining": int64(r.Remaining), "Ratelimit-Reset": seconds,
	} {
		header.Set(name, strconv.FormatInt(value, 10))
	}
	header.Set("Ratelimit-Policy", fmt.Sprintf("%d;w=%d", r.Limit.Rate, int(r.Limit.Period.Seconds())))
}

// Headers are those that tell a caller how it stands.
var Headers = []string{
	"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy",
}

// name is under what a caller is counted. Who has one address of IPv6 has the whole
// network of 64 bits around it.
func (c Caller) name() string {
	if c.DID != "" {
		return string(c.DID)
	}
	address, err := netip.ParseAddr(c.Address)
	if err != nil {
		return "unknown"
	}
	address = address.Unmap().WithZone("")
	if address.Is6() {
		network, _ := address.Prefix(64) // no address is too short for it
		return network.String()
	}
	return address.String()
}
