package xrpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

type resolverFunc func(context.Context, syntax.Handle) (syntax.DID, error)

func (f resolverFunc) ResolveHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	return f(ctx, h)
}

const (
	knownDID   = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	foreignDID = syntax.DID("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
)

// storeKnows resolves one handle, as the store does those of its repositories.
func storeKnows(handle syntax.Handle) resolverFunc {
	return func(_ context.Context, h syntax.Handle) (syntax.DID, error) {
		if h == handle {
			return knownDID, nil
		}
		return "", store.ErrNotFound
	}
}

func TestHandlesAreAskedOfTheStoreAndThenOfTheNetwork(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	h := newHandles(storeKnows("alice.test"), resolverFunc(func(_ context.Context, h syntax.Handle) (syntax.DID, error) {
		asked.Add(1)
		if h == "bob.test" {
			return foreignDID, nil
		}
		return "", errors.New("no such handle")
	}))
	resolve := func(id syntax.AtIdentifier) (syntax.DID, error) { return h.did(t.Context(), "repo", id) }

	did, err := resolve("did:web:x.example")
	require.NoError(t, err)
	require.EqualValues(t, "did:web:x.example", did)
	did, err = resolve("Alice.Test")
	require.NoError(t, err)
	require.Equal(t, knownDID, did)
	require.Zero(t, asked.Load())
	for range 3 {
		did, err = resolve("bob.test")
		require.NoError(t, err)
		require.Equal(t, foreignDID, did)
	}
	require.EqualValues(t, 1, asked.Load(), "an answer of the network is kept")
	for range 3 {
		_, err = resolve("carol.test")
		require.Equal(t, 400, AsError(err).Status)
		require.Equal(t, "InvalidRequest", AsError(err).Name)
		require.ErrorContains(t, err, `parameter "repo": could not resolve handle "carol.test"`)
	}
	require.EqualValues(t, 2, asked.Load(), "so is a failure")
}

func TestHandlesWithoutANetworkAreTheStoresAlone(t *testing.T) {
	t.Parallel()
	h := newHandles(storeKnows("alice.test"), nil)
	_, err := h.did(t.Context(), "repo", "bob.test")
	require.Equal(t, "InvalidRequest", AsError(err).Name)
}

func TestAStoreThatFailsIsNotAnUnresolvableHandle(t *testing.T) {
	t.Parallel()
	h := newHandles(resolverFunc(func(context.Context, syntax.Handle) (syntax.DID, error) {
		return "", context.DeadlineExceeded
	}), nil)
	_, err := h.did(t.Context(), "repo", "bob.test")
	require.Equal(t, 503, AsError(err).Status)
}

func TestOneQuestionServesAllWhoAskAtOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	asking, release := make(chan struct{}), make(chan struct{})
	h := newHandles(storeKnows(""), resolverFunc(func(ctx context.Context, _ syntax.Handle) (syntax.DID, error) {
		if asked.Add(1) == 1 {
			close(asking)
		}
		<-release
		return foreignDID, ctx.Err()
	}))
	first, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := h.did(first, "repo", "bob.test")
		gaveUp <- err
	}()
	<-asking
	var others sync.WaitGroup
	for range 10 {
		others.Go(func() {
			did, err := h.did(t.Context(), "repo", "bob.test")
			require.NoError(t, err, "the first caller's giving up ended the others' question")
			require.Equal(t, foreignDID, did)
		})
	}
	giveUp()
	require.ErrorIs(t, <-gaveUp, context.Canceled)
	close(release)
	others.Wait()
	require.EqualValues(t, 1, asked.Load())
}

func TestURIsAreRewrittenToTheirDID(t *testing.T) {
	t.Parallel()
	h := newHandles(storeKnows("alice.test"), nil)
	for uri, want := range map[syntax.ATURI]syntax.ATURI{
		"at://alice.test/a.b.c/self": "at://" + syntax.ATURI(knownDID) + "/a.b.c/self",
		"at://ALICE.test/a.b.c":      "at://" + syntax.ATURI(knownDID) + "/a.b.c",
		"at://alice.test":            "at://" + syntax.ATURI(knownDID),
		"at://did:web:x.y/a.b.c/~._": "at://did:web:x.y/a.b.c/~._",
	} {
		got, err := h.uri(t.Context(), "uri", uri)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}
