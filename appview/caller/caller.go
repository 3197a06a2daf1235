// Package caller tells who asks: an account that proves itself by a service-auth token
// of AT Protocol, or nobody in particular.
package caller

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/time/rate"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// Config says whom to believe what.
type Config struct {
	DID       string // of this service: the tokens' audience, alone or with Fragment
	Fragment  string // such as #layers_appview
	Directory identity.Directory
	// Admins and Premium are the accounts of these tiers.
	Admins, Premium []syntax.DID
}

// Tokens that do not hold cost look-ups of keys, which whoever sends them chooses. So
// an address may send a few, and an account's keys are looked up anew now and then.
const (
	wrongBurst  = 20
	wrongEvery  = 3 * time.Second
	wrongKept   = 100_000
	purgeEvery  = time.Minute
	lookupTime  = 5 * time.Second
	authRetry   = 30 * time.Second
	longestName = 8 << 10 // bytes of a token
)

// Callers tells who asks.
type Callers struct {
	audiences []auth.ServiceAuthValidator
	tiers     map[syntax.DID]traffic.Tier
	wrong     *expirable.LRU[string, *rate.Limiter] // by address
	directory *patient
}

// New makes callers.
func New(cfg Config) *Callers { return newCallers(cfg, purgeEvery) }

// newCallers makes callers whose keys are looked up anew no more often than that.
func newCallers(cfg Config, purgeEvery time.Duration) *Callers {
	c := &Callers{
		tiers: map[syntax.DID]traffic.Tier{}, wrong: expirable.NewLRU[string, *rate.Limiter](wrongKept, nil, wrongBurst*wrongEvery),
		directory: &patient{Directory: cfg.Directory, purged: expirable.NewLRU[syntax.AtIdentifier, struct{}](wrongKept, nil, purgeEvery)},
	}
	for _, audience := range []string{cfg.DID, cfg.DID + cfg.Fragment} {
		c.audiences = append(c.audiences, auth.ServiceAuthValidator{Audience: audience, Dir: c.directory})
	}
	for _, did := range cfg.Premium {
		c.tiers[did] = traffic.Premium
	}
	for _, did := range cfg.Admins {
		c.tiers[did] = traffic.Administrator
	}
	return c
}

// Identify reads who sent a request, from the given address. For an XRPC method the
// token must be for that one. An error is the answer: 401 for a token that does not
// hold, 429 for an address that sent many of them.
func (c *Callers) Identify(r *http.Request, address string, method syntax.NSID) (traffic.Caller, error) {
	from := traffic.Caller{Tier: traffic.Anonymous, Address: address}
	token, err := bearer(r)
	if token == "" || err != nil {
		return from, err
	}
	attempt, err := c.attempt(address)
	if err != nil {
		return from, err
	}
	did, err := c.validate(r.Context(), token, method)
	if ended := r.Context().Err(); ended != nil {
		return from, ended
	}
	if err != nil {
		attempt.failed()
		return from, refusal(err)
	}
	from.DID, from.Tier = did, traffic.Authenticated
	if tier, ok := c.tiers[did]; ok {
		from.Tier = tier
	}
	return from, nil
}

// attempt is what an address may do to prove itself.
type attempt struct {
	failures *rate.Limiter
	of       string // address
	by       *Callers
}

// attempt lets an address try to prove itself, unless it failed too many times.
func (c *Callers) attempt(address string) (attempt, error) {
	failures, ok := c.wrong.Get(address)
	if !ok {
		failures = rate.NewLimiter(rate.Every(wrongEvery), wrongBurst)
	}
	if failures.Tokens() < 1 {
		return attempt{}, &xrpc.Error{
			Status: http.StatusTooManyRequests, Name: "RateLimitExceeded", RetryAfter: authRetry, Message: "too many tokens from your address did not hold",
		}
	}
	return attempt{failures: failures, of: address, by: c}, nil
}

// failed counts an attempt that failed.
func (a attempt) failed() {
	if !a.by.wrong.Contains(a.of) {
		a.by.wrong.Add(a.of, a.failures)
	}
	a.failures.Allow()
}

func (c *Callers) validate(ctx context.Context, token string, method syntax.NSID) (did syntax.DID, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var of *syntax.NSID
	if method != "" {
		of = &method
	}
	for i := range c.audiences {
		did, err = c.audiences[i].Validate(ctx, token, of)
		if !errors.Is(err, jwt.ErrTokenInvalidAudience) {
			return did, err
		}
	}
	return did, err
}

// refusal says what is wrong with a token, in no words that others chose.
func refusal(err error) error {
	if errors.Is(err, identity.ErrDIDResolutionFailed) || errors.Is(err, context.DeadlineExceeded) {
		return &xrpc.Error{
			Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: lookupTime, Message: "the key of the token's issuer cannot be looked up at the moment",
		}
	}
	for _, known := range []struct {
		err     error
		name    string
		message string
	}{
		{jwt.ErrTokenExpired, "ExpiredToken", "the token has expired"},
		{jwt.ErrTokenMalformed, "BadJwt", "the token is malformed"},
		{jwt.ErrTokenInvalidAudience, "BadJwtAudience", "the token is for another service: expected this one's DID as aud"},
		{jwt.ErrTokenUsedBeforeIssued, "BadJwt", "the token is from the future"},
		{jwt.ErrTokenRequiredClaimMissing, "BadJwt", "the token lacks exp"},
		{jwt.ErrTokenSignatureInvalid, "BadJwtSignature", "the token's signature is not of its issuer's key"},
		{jwt.ErrTokenInvalidIssuer, "BadJwtIss", "the token's issuer has no key that is known"},
		{jwt.ErrTokenInvalidClaims, "BadJwtLexiconMethod", "the token is for another method, or its claims do not hold"},
	} {
		if errors.Is(err, known.err) {
			return unauthorized(known.name, known.message)
		}
	}
	return unauthorized("BadJwt", "the token does not hold")
}

func unauthorized(name, message string) error {
	return &xrpc.Error{Status: http.StatusUnauthorized, Name: name, Message: message}
}

// patient forgets an account's keys no more than now and then, however many tokens
// that do not hold name it.
type patient struct {
	identity.Directory
	purged *expirable.LRU[syntax.AtIdentifier, struct{}]
}

// Purge forgets what is known of an account, unless that was done just now.
func (p *patient) Purge(ctx context.Context, id syntax.AtIdentifier) error {
	if p.purged.Contains(id) {
		return nil
	}
	p.purged.Add(id, struct{}{})
	return p.Directory.Purge(ctx, id)
}
