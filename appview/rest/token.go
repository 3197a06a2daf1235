package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"github.com/layers-pub/layers-appview/appview/xrpc"
)

// A token is a cursor of a list that is not one of records: base64url, without
// padding, of a JSON array, first the scope's hash and then where the page before
// ended. It is no secret; whoever forges one only moves along a list that is public.

var errToken = xrpc.InvalidRequest("parameter %q: expected a cursor from an earlier page with the same other parameters", "cursor")

// encodeToken makes a cursor for a list, which its scope tells from all others.
func encodeToken(scope []string, at ...string) string {
	text, err := json.Marshal(append([]string{scopeHash(scope)}, at...))
	if err != nil {
		panic(err) // strings always encode
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// after gives back the parts of the call's cursor, which is of a scope and has so many;
// nil where there is none.
func (c *Call) after(scope []string, parts int) ([]string, error) {
	text, given := c.Text("cursor")
	if !given {
		return nil, nil
	}
	at, err := decodeToken(text, scope)
	if err == nil && len(at) != parts {
		err = errToken
	}
	return at, err
}

// decodeToken gives back what a cursor of the same scope was made of; strings of
// valid UTF-8, which may be forged.
func decodeToken(token string, scope []string) ([]string, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || !utf8.Valid(text) {
		return nil, errToken
	}
	var parts []string
	if err := json.Unmarshal(text, &parts); err != nil || len(parts) == 0 || parts[0] != scopeHash(scope) {
		return nil, errToken
	}
	return slices.Clone(parts[1:]), nil
}

func scopeHash(scope []string) string {
	text, err := json.Marshal(scope)
	if err != nil {
		panic(err) // strings always encode
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}
