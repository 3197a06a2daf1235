package xrpc

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/singleflight"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Resolver asks the network for the DID that a handle names, having checked
// that the DID's document names the handle in turn. It bounds its own time.
type Resolver interface {
	ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error)
}

const (
	resolvedFor    = 5 * time.Minute  // how long a network's answer is believed
	unresolvedFor  = 30 * time.Second // and a failure
	resolvedMost   = 10_000           // answers kept; about 1 MB
	resolveTimeout = 5 * time.Second
)

// handles turns handles into DIDs: those of repositories in the index from the
// store, all others from the network, whose answers are kept for a while.
type handles struct {
	known interface {
		ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error)
	}
	network Resolver // nil: the store alone

	found    *expirable.LRU[syntax.Handle, syntax.DID]
	missing  *expirable.LRU[syntax.Handle, struct{}]
	inFlight singleflight.Group
}

func newHandles(known, network Resolver) *handles {
	return &handles{
		known:   known,
		network: network,
		found:   expirable.NewLRU[syntax.Handle, syntax.DID](resolvedMost, nil, resolvedFor),
		missing: expirable.NewLRU[syntax.Handle, struct{}](resolvedMost, nil, unresolvedFor),
	}
}

// did resolves a handle or passes a DID through. A handle that nothing resolves
// is an InvalidRequest that names the parameter.
func (h *handles) did(ctx context.Context, parameter string, id syntax.AtIdentifier) (syntax.DID, error) {
	if did, err := id.AsDID(); err == nil {
		return did, nil
	}
	handle := id.Handle().Normalize()
	did, err := h.known.ResolveHandle(ctx, handle)
	if errors.Is(err, store.ErrNotFound) {
		did, err = h.ask(ctx, handle)
	}
	if errors.Is(err, errUnresolved) {
		return "", InvalidRequest("parameter %q: could not resolve handle %s", parameter, Quote(string(handle)))
	}
	return did, err
}

var errUnresolved = errors.New("could not resolve handle")

// ask has the network resolve a handle, once for all who ask at the same time.
// A caller that gives up leaves the others' question standing.
func (h *handles) ask(ctx context.Context, handle syntax.Handle) (syntax.DID, error) {
	if did, ok := h.kept(handle); ok || h.network == nil {
		return resolved(did)
	}
	answer := h.inFlight.DoChan(string(handle), func() (any, error) {
		if did, ok := h.kept(handle); ok { // since then, by a question that has just ended
			return resolved(did)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
		defer cancel()
		did, err := h.network.ResolveHandle(ctx, handle)
		if err != nil {
			h.missing.Add(handle, struct{}{})
			return nil, errUnresolved
		}
		h.found.Add(handle, did)
		return did, nil
	})
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case result := <-answer:
		if result.Err != nil {
			return "", result.Err
		}
		return result.Val.(syntax.DID), nil
	}
}

// kept is the network's last answer while it is believed: empty where it was a failure.
func (h *handles) kept(handle syntax.Handle) (did syntax.DID, ok bool) {
	did, ok = h.found.Get(handle)
	return did, ok || h.missing.Contains(handle)
}

func resolved(did syntax.DID) (syntax.DID, error) {
	if did == "" {
		return "", errUnresolved
	}
	return did, nil
}

// uri gives an AT-URI whose authority is a handle the DID instead.
func (h *handles) uri(ctx context.Context, parameter string, uri syntax.ATURI) (syntax.ATURI, error) {
	authority, _, _ := SplitURI(uri)
	if authority.IsDID() {
		return uri, nil
	}
	did, err := h.did(ctx, parameter, authority)
	if err != nil {
		return "", err
	}
	return syntax.ATURI("at://" + string(did) + strings.TrimPrefix(string(uri), "at://"+string(authority))), nil
}

// DID resolves a handle or passes a DID through, as for XRPC: a handle that nothing
// resolves is an InvalidRequest that names the parameter.
func (s *Service) DID(ctx context.Context, parameter string, id syntax.AtIdentifier) (syntax.DID, error) {
	return s.handles.did(ctx, parameter, id)
}
