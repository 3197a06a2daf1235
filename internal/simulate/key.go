package simulate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"gitlab.com/yawning/secp256k1-voi/secec"
)

// A signingKey signs commits. The same content always gives the same signature
// (RFC 6979), which is what makes a whole stream reproducible; indigo's own
// private keys mix in fresh randomness instead.
type signingKey interface {
	// sign returns the 64-byte low-S signature of the content's SHA-256.
	sign(content []byte) ([]byte, error)
	// multibase is the public key as a DID document's publicKeyMultibase.
	multibase() string
}

// deriveKey makes the signing key of an account's nth generation out of the
// world's seed. One account in four has a P-256 key, the others K-256.
func deriveKey(seed uint64, name string, generation int) (signingKey, error) {
	secret := digest("signing key", seed, name, generation)
	if digest("curve", seed, name)[0]%4 == 0 {
		return newP256(secret[:])
	}
	return newK256(secret[:])
}

func digest(parts ...any) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q", parts))
}

type k256 struct {
	private *secec.PrivateKey
	public  string
}

func newK256(secret []byte) (*k256, error) {
	private, err := secec.NewPrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("derive K-256 key: %w", err)
	}
	public, err := atcrypto.ParsePublicBytesK256(private.PublicKey().CompressedBytes())
	if err != nil {
		return nil, fmt.Errorf("encode K-256 public key: %w", err)
	}
	return &k256{private: private, public: public.Multibase()}, nil
}

var k256Options = &secec.ECDSAOptions{Hash: crypto.SHA256, Encoding: secec.EncodingCompact}

func (k *k256) sign(content []byte) ([]byte, error) {
	sum := sha256.Sum256(content)
	return k.private.Sign(secec.RFC6979SHA256(), sum[:], k256Options)
}

func (k *k256) multibase() string { return k.public }

type p256 struct {
	private *ecdsa.PrivateKey
	public  string
}

func newP256(secret []byte) (*p256, error) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
	if err != nil {
		return nil, fmt.Errorf("derive P-256 key: %w", err)
	}
	exportable, err := atcrypto.ParsePrivateBytesP256(secret)
	if err != nil {
		return nil, fmt.Errorf("derive P-256 key: %w", err)
	}
	public, err := exportable.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("encode P-256 public key: %w", err)
	}
	return &p256{private: private, public: public.Multibase()}, nil
}

func (k *p256) sign(content []byte) ([]byte, error) {
	sum := sha256.Sum256(content)
	der, err := k.private.Sign(nil, sum[:], crypto.SHA256) // a nil reader means RFC 6979
	if err != nil {
		return nil, err
	}
	var parsed struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &parsed); err != nil {
		return nil, fmt.Errorf("parse own signature: %w", err)
	}
	order := elliptic.P256().Params().N
	if parsed.S.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
		parsed.S.Sub(order, parsed.S)
	}
	sig := make([]byte, 64)
	parsed.R.FillBytes(sig[:32])
	parsed.S.FillBytes(sig[32:])
	return sig, nil
}

func (k *p256) multibase() string { return k.public }
