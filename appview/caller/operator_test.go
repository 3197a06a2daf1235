package caller

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

const static = "a-token-that-somebody-has-generated"

func newOperators(w *world) *Operators {
	spent := map[string]bool{}
	return NewOperators(OperatorConfig{
		Token: static, Config: Config{DID: service, Fragment: fragment, Directory: w.network, Admins: []syntax.DID{admin}},
		Spend: func(_ context.Context, token string, _ time.Time) (bool, error) {
			fresh := !spent[token]
			spent[token] = true
			return fresh, nil
		},
	})
}

func operate(o *Operators, header string) (string, error) {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Authorization", header)
	return o.Identify(r, address)
}

func TestOperators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := newOperators(w)
	who, err := operate(o, "Bearer "+static)
	require.NoError(t, err)
	require.Equal(t, Operator, who)

	token := "Bearer " + w.token(t, admin, service, time.Minute, AdminMethod)
	who, err = operate(o, token)
	require.NoError(t, err)
	require.Equal(t, string(admin), who)
	_, err = operate(o, token)
	require.Equal(t, "ReplayedToken", xrpc.AsError(err).Name)
	_, err = operate(o, "Bearer "+w.token(t, admin, service+fragment, time.Minute, AdminMethod))
	require.NoError(t, err, "the next one holds")

	require.Nil(t, NewOperators(OperatorConfig{}), "nobody may, if nobody is named")
}

func TestWhoIsNoOperator(t *testing.T) {
	t.Parallel()
	w, stranger := newWorld(t), newWorld(t)
	o := newOperators(w)
	for name, c := range map[string]struct {
		header string
		status int
	}{
		"nothing":                       {"", 401},
		"no token":                      {"Bearer ", 401},
		"another token":                 {"Bearer " + static + "x", 401},
		"part of the token":             {"Bearer " + static[:8], 401},
		"another account":               {"Bearer " + w.token(t, someone, service, time.Minute, AdminMethod), 403},
		"a premium account":             {"Bearer " + w.token(t, premium, service, time.Minute, AdminMethod), 403},
		"a token to read":               {"Bearer " + w.token(t, admin, service, time.Minute, method), 401},
		"a token for no method":         {"Bearer " + w.token(t, admin, service, time.Minute, ""), 401},
		"a token for another service":   {"Bearer " + w.token(t, admin, "did:web:other.example", time.Minute, AdminMethod), 401},
		"a token that is good for long": {"Bearer " + w.token(t, admin, service, 24*time.Hour, AdminMethod), 401},
		"another's signature":           {"Bearer " + stranger.token(t, admin, service, time.Minute, AdminMethod), 401},
		"an expired token":              {"Bearer " + w.token(t, admin, service, -time.Minute, AdminMethod), 401},
		"a token that names no token":   {"Bearer " + unnamed(t), 401},
	} {
		who, err := operate(o, c.header)
		require.Equal(t, c.status, xrpc.AsError(err).Status, "%s: %v", name, err)
		require.Empty(t, who, name)
	}
	withoutStatic := NewOperators(OperatorConfig{Config: Config{DID: service, Directory: w.network, Admins: []syntax.DID{admin}}})
	_, err := operate(withoutStatic, "Bearer ")
	require.Error(t, err, "no static token is not the empty one")
}

// unnamed is a token without jti.
func unnamed(t *testing.T) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{Issuer: string(admin), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Minute))}).SignedString([]byte("x"))
	require.NoError(t, err)
	return token
}

// TestRotatedKeysOfOperators has a key that was rotated away refused at once, although
// it is still remembered, and the new one taken.
func TestRotatedKeysOfOperators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remembering := &remembered{network: w.network}
	o := NewOperators(OperatorConfig{
		Config: Config{DID: service, Directory: remembering, Admins: []syntax.DID{admin}},
		Spend:  func(context.Context, string, time.Time) (bool, error) { return true, nil },
	})
	_, err := remembering.LookupDID(t.Context(), admin)
	require.NoError(t, err)
	stolen := "Bearer " + w.token(t, admin, service, time.Minute, AdminMethod)
	key, err := atcrypto.GeneratePrivateKeyK256()
	require.NoError(t, err)
	w.account(t, admin, key)
	_, err = operate(o, stolen)
	require.Equal(t, "BadJwtSignature", xrpc.AsError(err).Name)
	w.key = key
	_, err = operate(o, "Bearer "+w.token(t, admin, service, time.Minute, AdminMethod))
	require.NoError(t, err)
}

func TestForgeriesOfOperatorsCostLittle(t *testing.T) {
	t.Parallel()
	w, stranger := newWorld(t), newWorld(t)
	o := newOperators(w)
	forged := "Bearer " + stranger.token(t, admin, service, time.Minute, AdminMethod)
	var last error
	for range 200 {
		_, last = operate(o, forged)
	}
	require.Equal(t, http.StatusTooManyRequests, xrpc.AsError(last).Status)
	require.Less(t, w.looked.Load(), int64(4*(wrongBurst+20)))
	for range 20 {
		_, _ = operate(o, "Bearer guess")
	}
	_, err := operate(o, "Bearer "+static)
	require.Equal(t, http.StatusTooManyRequests, xrpc.AsError(err).Status, "nor can the static token be guessed quickly")
}

func TestATokenThatCannotBeNotedIsNotTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := errors.New("broken")
	o := NewOperators(OperatorConfig{
		Config: Config{DID: service, Directory: w.network, Admins: []syntax.DID{admin}},
		Spend:  func(context.Context, string, time.Time) (bool, error) { return false, broken },
	})
	_, err := operate(o, "Bearer "+w.token(t, admin, service, time.Minute, AdminMethod))
	require.ErrorIs(t, err, broken)
}

// remembered is a directory that answers from memory until it is told to forget.
type remembered struct {
	*network
	known map[syntax.DID]*identity.Identity
}

func (r *remembered) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	if found, ok := r.known[did]; ok {
		return found, nil
	}
	found, err := r.network.LookupDID(ctx, did)
	if err == nil {
		r.known = map[syntax.DID]*identity.Identity{did: found}
	}
	return found, err
}

func (r *remembered) Purge(context.Context, syntax.AtIdentifier) error { r.known = nil; return nil }
