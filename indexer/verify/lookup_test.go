package verify_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// unwell is a directory whose first look-ups fail.
type unwell struct {
	*keys
	failures []error
	asked    int
}

func (u *unwell) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	u.asked++
	if u.asked <= len(u.failures) {
		return nil, u.failures[u.asked-1]
	}
	return u.keys.LookupDID(ctx, did)
}

// TestLookupsThatFail are repeated where it is the directory of all accounts that
// failed, and not where it is a host that an account names: that one may hang for as
// long as it likes.
func TestLookupsThatFail(t *testing.T) {
	t.Parallel()
	down := errors.New("no answer")
	for name, c := range map[string]struct {
		did      syntax.DID
		failures []error
		asked    int
		want     verify.Reason // empty: it is taken
	}{
		"the directory fails twice":            {"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", []error{down, down}, 3, ""},
		"the directory fails three times":      {"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", []error{down, down, down, down}, 3, verify.Identity},
		"the directory does not know the DID":  {"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", []error{identity.ErrDIDNotFound, nil}, 1, verify.Identity},
		"an account's own host fails":          {"did:web:slow.example.com", []error{down, down, down, down}, 2, verify.Identity},
		"the cache was emptied under a waiter": {"did:web:slow.example.com", []error{down}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForger(t)
			f.did, f.keys.account.DID, f.keys.cached = c.did, c.did, nil
			directory := &unwell{keys: f.keys, failures: c.failures}
			_, err := verify.New(directory).Commit(t.Context(), f.writes().seal(), all)
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.Equal(t, c.want, reasonOf(t, err), "%v", err)
			}
			require.Equal(t, c.asked, directory.asked)
		})
	}
}

// TestAsideWhileALookupLasts has a caller go aside before a look-up is answered, and come back
// after.
func TestAsideWhileALookupLasts(t *testing.T) {
	t.Parallel()
	f := newForger(t)
	var left, back atomic.Int32
	gone := make(chan struct{}, 1)
	ctx := verify.Aside(t.Context(), func() { left.Add(1); gone <- struct{}{} }, func() { back.Add(1) })

	_, err := verify.New(waiting{f.keys, gone}).Commit(ctx, f.writes().seal(), all)
	require.NoError(t, err)
	require.Equal(t, []int32{1, 1}, []int32{left.Load(), back.Load()})
}

// waiting answers once the caller has gone aside.
type waiting struct {
	*keys
	gone <-chan struct{}
}

func (w waiting) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	select {
	case <-w.gone:
		return w.keys.LookupDID(ctx, did)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestKeysAreNotMixedUp verifies commits of two accounts in turn.
func TestKeysAreNotMixedUp(t *testing.T) {
	t.Parallel()
	one, two := newForger(t), newForger(t)
	two.did, two.keys.account.DID = "did:plc:twotwotwotwotwotwotwotwo", "did:plc:twotwotwotwotwotwotwotwo"
	both := accounts{one.did: one.keys, two.did: two.keys}
	verifier := verify.New(both)
	for range 2 {
		for _, f := range []*forger{one, two} {
			_, err := verifier.Commit(t.Context(), f.draft(nil).seal(), all)
			require.NoError(t, err)
		}
	}
	one.key = two.key
	_, err := verifier.Commit(t.Context(), one.draft(nil).seal(), all)
	require.Equal(t, verify.Signature, reasonOf(t, err), "another account's key is none of this one's")
}

type accounts map[syntax.DID]*keys

func (a accounts) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	return a[did].LookupDID(ctx, did)
}

func (a accounts) Purge(ctx context.Context, id syntax.AtIdentifier) error {
	return a[syntax.DID(id)].Purge(ctx, id)
}
