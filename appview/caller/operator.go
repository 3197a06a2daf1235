package caller

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/golang-jwt/jwt/v5"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// AdminMethod is what the token of an operator must be for (lxm): one that was made to
// read cannot be used to change something.
const AdminMethod = syntax.NSID("pub.layers.appview.admin")

// Operator is the name of who has the static token.
const Operator = "operator"

// An operator's keys are looked up anew for each request, but for those that follow
// closely. So a key that was rotated away is worth nothing soon after.
const (
	operatorFresh   = 5 * time.Second
	longestLifetime = time.Hour + time.Minute // that a PDS gives a token, with what clocks differ by
)

// OperatorConfig says who operators are. With neither a token nor accounts there are none.
type OperatorConfig struct {
	Token string // static; "" for none
	// Config has the accounts in Admins; Premium is not looked at.
	Config
	// Spend notes that a token is used, and tells whether it had not been before.
	Spend func(ctx context.Context, token string, expires time.Time) (fresh bool, err error)
}

// Operators tells operators from everybody else.
type Operators struct {
	token   [sha256.Size]byte // hash of the static one
	static  bool
	admins  []syntax.DID
	callers *Callers
	spend   func(context.Context, string, time.Time) (bool, error)
}

// NewOperators makes operators; nil if there are none.
func NewOperators(cfg OperatorConfig) *Operators {
	if cfg.Token == "" && len(cfg.Admins) == 0 {
		return nil
	}
	return &Operators{
		token: sha256.Sum256([]byte(cfg.Token)), static: cfg.Token != "",
		admins: cfg.Admins, callers: newCallers(cfg.Config, operatorFresh), spend: cfg.Spend,
	}
}

// Identify tells which operator sent a request, from the given address: a DID, or
// [Operator]. An error is the answer: 401 without a token that holds, 403 for an account
// that is none of the operators', 429 for an address that sent many that do not hold.
func (o *Operators) Identify(r *http.Request, address string) (who string, err error) {
	token, err := bearer(r)
	if err != nil {
		return "", err
	}
	if token == "" {
		return "", unauthorized("AuthenticationRequired", "this is for operators: send a token")
	}
	attempt, err := o.callers.attempt(address)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256([]byte(token))
	if o.static && subtle.ConstantTimeCompare(hash[:], o.token[:]) == 1 {
		return Operator, nil
	}
	did, err := o.account(r.Context(), token)
	if ended := r.Context().Err(); ended != nil {
		return "", ended
	}
	if err != nil {
		attempt.failed()
		return "", err
	}
	return string(did), nil
}

// account tells which operator's account made a token, and takes it for used.
func (o *Operators) account(ctx context.Context, token string) (syntax.DID, error) {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		return "", unauthorized("BadJwt", "the token does not hold")
	}
	did := syntax.DID(claims.Issuer)
	if !slices.Contains(o.admins, did) { // before anything is looked up for it
		return "", &xrpc.Error{Status: http.StatusForbidden, Name: "Forbidden", Message: "the token is of no operator"}
	}
	switch {
	case claims.ID == "":
		return "", unauthorized("BadJwt", "the token lacks jti: it could be used again")
	case claims.ExpiresAt == nil || time.Until(claims.ExpiresAt.Time) > longestLifetime:
		return "", unauthorized("BadJwt", "the token is good for more than an hour")
	}
	if err := o.callers.directory.Purge(ctx, did.AtIdentifier()); err != nil {
		return "", fmt.Errorf("forget the keys of %s: %w", did, err)
	}
	proven, err := o.callers.validate(ctx, token, AdminMethod)
	if err != nil {
		return "", refusal(err)
	}
	fresh, err := o.spend(ctx, string(proven)+" "+claims.ID, claims.ExpiresAt.Add(time.Minute))
	if err != nil {
		return "", err
	}
	if !fresh {
		return "", unauthorized("ReplayedToken", "the token has been used: each is good for one request")
	}
	return proven, nil
}

// bearer reads a request's token; "" for none.
func bearer(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > longestName {
		return "", unauthorized("AuthenticationRequired", "header Authorization: expected Bearer and a service-auth token")
	}
	return token, nil
}
