package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	keyCacheSize = 50_000           // parsed keys; about 200 bytes each
	lookupTime   = 10 * time.Second // one look-up of an identity
	lookupTries  = 3
)

// keyring checks signatures against the keys that a directory knows. Parsed keys
// are kept: to decompress one costs a tenth of a verification.
type keyring struct {
	directory directory
	parsed    *lru.Cache[identity.VerificationMethod, atcrypto.PublicKey]
}

func newKeyring(dir directory) *keyring {
	parsed, err := lru.New[identity.VerificationMethod, atcrypto.PublicKey](keyCacheSize)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &keyring{directory: dir, parsed: parsed}
}

// check verifies the commit's signature. Where it does not fit, the identity is
// looked up afresh once, since the key may have been rotated.
func (k *keyring) check(ctx context.Context, did syntax.DID, commit *repo.Commit) (*identity.Identity, error) {
	account, err := k.lookup(ctx, did)
	if err != nil {
		return nil, err
	}
	if k.verify(account, commit) == nil {
		return account, nil
	}
	if err := k.directory.Purge(ctx, did.AtIdentifier()); err != nil {
		return nil, fmt.Errorf("refreshing the identity of %s: %w", did, err)
	}
	if account, err = k.lookup(ctx, did); err != nil {
		return nil, err
	}
	return account, k.verify(account, commit)
}

func (k *keyring) verify(account *identity.Identity, commit *repo.Commit) error {
	key, err := k.key(account)
	if err != nil {
		return refuse(Identity, "signing key of %s: %w", account.DID, err)
	}
	if err := commit.VerifySignature(key); err != nil {
		return refuse(Signature, "commit %s of %s: %w", commit.Rev, account.DID, err)
	}
	return nil
}

// lookup asks for the identity, again where the network failed. A DID that does
// not exist is a refusal; a network that stays silent is as well, in the end,
// since the stream must go on.
func (k *keyring) lookup(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	var account *identity.Identity
	var err error
	for try := range lookupTries {
		if account, err = k.lookupOnce(ctx, did); err == nil {
			return account, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, identity.ErrDIDNotFound) {
			break
		}
		_ = k.directory.Purge(ctx, did.AtIdentifier()) // the failure itself is cached
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
	return nil, refuse(Identity, "looking up %s: %w", did, err)
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
