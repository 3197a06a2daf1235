package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	keyCacheSize = 50_000           // parsed keys; about 200 bytes each
	lookupTime   = 10 * time.Second // one look-up of an identity
	lookupTries  = 3
	soon         = time.Millisecond // what is known already comes sooner

	// An account whose signatures do not fit is looked up afresh this often and no
	// more, lest forged commits be paid for by the directory of identities.
	refreshBurst  = 8
	refreshEvery  = 5 * time.Second
	refreshedSize = 10_000 // accounts whose refreshes are counted
)

// keyring checks signatures against the keys that a directory knows. Parsed keys
// are kept: to decompress one costs a tenth of a verification.
type keyring struct {
	directory directory
	parsed    *lru.Cache[identity.VerificationMethod, atcrypto.PublicKey]
	refreshed *lru.Cache[syntax.DID, *rate.Limiter]
}

func newKeyring(dir directory) *keyring {
	return &keyring{
		directory: dir,
		parsed:    newCache[identity.VerificationMethod, atcrypto.PublicKey](keyCacheSize),
		refreshed: newCache[syntax.DID, *rate.Limiter](refreshedSize),
	}
}

func newCache[K comparable, V any](size int) *lru.Cache[K, V] {
	cache, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only for a size below one
	}
	return cache
}

// check verifies the commit's signature. Where it does not fit, the identity is
// looked up afresh once, since the key may have been rotated.
func (k *keyring) check(ctx context.Context, commit signedCommit) (*identity.Identity, error) {
	account, err := k.lookup(ctx, commit.did)
	if err != nil {
		return nil, err
	}
	refusal := k.verify(account, commit)
	if refusal == nil || !k.mayRefresh(commit.did) {
		return account, refusal
	}
	if err := k.directory.Purge(ctx, commit.did.AtIdentifier()); err != nil {
		return nil, fmt.Errorf("refreshing the identity of %s: %w", commit.did, err)
	}
	if account, err = k.lookup(ctx, commit.did); err != nil {
		return nil, err
	}
	return account, k.verify(account, commit)
}

func (k *keyring) mayRefresh(did syntax.DID) bool {
	limiter, ok := k.refreshed.Get(did)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(refreshEvery), refreshBurst)
		if other, raced, _ := k.refreshed.PeekOrAdd(did, limiter); raced {
			limiter = other
		}
	}
	return limiter.Allow()
}

func (k *keyring) verify(account *identity.Identity, commit signedCommit) error {
	key, err := k.key(account)
	if err != nil {
		return refuse(Identity, "signing key of %s: %w", account.DID, err)
	}
	if err := key.HashAndVerify(commit.unsigned, commit.sig); err != nil {
		return refuse(Signature, "commit %s of %s: %w", commit.rev, account.DID, err)
	}
	return nil
}

// Aside returns a context with which a verifier calls leave when it has to wait for an
// identity, which may take seconds, and back once it has it.
func Aside(ctx context.Context, leave, back func()) context.Context {
	return context.WithValue(ctx, asideKey{}, aside{leave, back})
}

type (
	asideKey struct{}
	aside    struct{ leave, back func() }
)

// lookup asks for the identity; again, where it is the directory that all accounts
// share that failed. A host that an account names itself is asked once: accounts
// could otherwise hold up the line by naming hosts that hang. A DID that does not
// exist is a refusal; a network that stays silent is as well, in the end, since the
// stream must go on.
func (k *keyring) lookup(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	if a, ok := ctx.Value(asideKey{}).(aside); ok {
		left := time.AfterFunc(soon, a.leave)
		defer func() {
			if !left.Stop() {
				a.back()
			}
		}()
	}
	for try := 1; ; try++ {
		account, err := k.lookupOnce(ctx, did)
		switch {
		case err == nil:
			return account, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, identity.ErrDIDNotFound), try == lookupTries:
			return nil, refuse(Identity, "looking up %s: %w", did, err)
		case did.Method() == "plc":
			_ = k.directory.Purge(ctx, did.AtIdentifier()) // the failure itself is cached
		case try == 2: // the first failure may have been one of the cache, which this try then was past
			return nil, refuse(Identity, "looking up %s: %w", did, err)
		default:
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try-1) * time.Second):
		}
	}
}

func (k *keyring) lookupOnce(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return k.directory.LookupDID(ctx, did)
}

// key parses the account's signing key, or finds it parsed.
func (k *keyring) key(account *identity.Identity) (atcrypto.PublicKey, error) {
	method := account.Keys["atproto"]
	if key, ok := k.parsed.Get(method); ok {
		return key, nil
	}
	key, err := account.PublicKey()
	if err != nil {
		return nil, err
	}
	k.parsed.Add(method, key)
	return key, nil
}

func declaredHandle(account *identity.Identity) syntax.Handle {
	handle, err := account.DeclaredHandle()
	if err != nil {
		return ""
	}
	return handle
}
