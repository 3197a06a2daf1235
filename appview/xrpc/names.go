package xrpc

import (
	"context"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Names are the names under which records may refer to what a parameter names by an
// AT-URI, a DID or a web address: the one with a DID first, then the one with a
// handle, where that was given.
func (s *Service) Names(ctx context.Context, parameter, text string) ([]string, error) {
	switch {
	case strings.HasPrefix(text, "at://"):
		uri, err := syntax.ParseATURI(text)
		if err != nil {
			return nil, InvalidRequest("parameter %q: malformed AT-URI %s", parameter, Quote(text))
		}
		repo, _, _ := SplitURI(uri)
		if repo.IsDID() {
			return []string{text}, nil
		}
		did, err := s.DID(ctx, parameter, repo)
		if err != nil {
			return nil, err
		}
		return []string{strings.Replace(text, string(repo), string(did), 1), text}, nil
	case strings.HasPrefix(text, "did:"):
		if _, err := syntax.ParseDID(text); err != nil {
			return nil, InvalidRequest("parameter %q: malformed DID %s", parameter, Quote(text))
		}
	default:
		if _, err := syntax.ParseURI(text); err != nil {
			return nil, InvalidRequest("parameter %q: expected an AT-URI, a DID or a web address, got %s", parameter, Quote(text))
		}
	}
	return []string{text}, nil
}
