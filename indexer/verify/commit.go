package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// signedCommit is a commit block, taken apart
// (https://atproto.com/specs/repository, "Commit Objects").
type signedCommit struct {
	did      syntax.DID
	rev      syntax.TID
	data     cid.Cid // root of the tree
	sig      []byte
	unsigned []byte // the block without sig: what was signed
}

// parseCommit reads a commit block. The signature is over the block's own bytes but
// for sig, properties of later versions of the protocol included: were it checked
// over the known ones encoded anew, whoever passes the commit on could add to the
// block, and so change its CID.
func parseCommit(block []byte) (signedCommit, error) {
	r := cborReader{data: block}
	n, err := r.expect(cborMap)
	if err != nil {
		return signedCommit{}, refuse(Blocks, "signed commit: %w", err)
	}
	if n == 0 || n > 20 {
		return signedCommit{}, refuse(Blocks, "signed commit: %d properties", n)
	}
	c := signedCommit{unsigned: append(make([]byte, 0, len(block)), cborMap<<5|byte(n-1))}
	known, version := 0, uint64(0)
	copied := r.pos
	err = r.entries(n, func(key string) (err error) {
		known++
		switch key {
		case "did":
			c.did, err = parseText(&r, syntax.ParseDID)
		case "rev":
			c.rev, err = parseText(&r, syntax.ParseTID)
		case "data":
			c.data, err = r.link()
		case "prev":
			_, err = r.nullableLink()
		case "version":
			version, err = r.expect(cborUint)
		case "sig":
			c.unsigned = append(c.unsigned, block[copied:r.pos-len("\x63sig")]...)
			c.sig, err = r.bytes()
			copied = r.pos
		default:
			known--
			err = r.skip(1)
		}
		return err
	})
	if err == nil {
		err = r.end()
	}
	switch {
	case err != nil:
		return signedCommit{}, refuse(Blocks, "signed commit: %w", err)
	case known != 6:
		return signedCommit{}, refuse(Blocks, "signed commit: of did, rev, data, prev, version and sig it has %d", known)
	case version != uint64(repo.ATPROTO_REPO_VERSION):
		return signedCommit{}, refuse(Malformed, "signed commit: repository version %d", version)
	}
	c.unsigned = append(c.unsigned, block[copied:]...)
	return c, nil
}

// commit reads the signed commit among the blocks.
func (b blockMap) commit(root cid.Cid) (signedCommit, error) {
	block, ok := b[root]
	if !ok {
		return signedCommit{}, refuse(Blocks, "the commit's block %s is missing", root)
	}
	return parseCommit(block)
}

func parseText[T any](r *cborReader, parse func(string) (T, error)) (value T, err error) {
	text, err := r.text()
	if err != nil {
		return value, err
	}
	return parse(string(text))
}

// checkRev refuses revs that lie in the future: later ones could not exceed them.
func (v *Verifier) checkRev(rev syntax.TID) error {
	if ahead := rev.Time().Sub(v.now()); ahead > FutureSkew {
		return refuse(Future, "rev %s lies %s ahead of our clock", rev, ahead.Round(time.Second))
	}
	return nil
}

// Signed is a repository's state as its account has signed it.
type Signed struct {
	DID    syntax.DID
	Rev    syntax.TID
	CID    cid.Cid       // of the commit block
	Data   cid.Cid       // root of the tree
	PDS    string        // the account's service endpoint; empty where its document names none
	Handle syntax.Handle // as declared, not verified; empty where none is
}

// Signed checks a commit block outside of the stream, such as that of a repository
// that was fetched: its content is what root names, it is the commit of did, its
// rev does not lie in the future, and the account signed it (the identity is looked
// up afresh once where the signature does not fit). It fails as [Verifier.Commit] does.
func (v *Verifier) Signed(ctx context.Context, did syntax.DID, root cid.Cid, block []byte) (Signed, error) {
	if c, err := blockCID(block); err != nil || c != root {
		return Signed{}, refuse(Blocks, "the commit's block is not what the root %s names", root)
	}
	commit, err := parseCommit(block)
	if err != nil {
		return Signed{}, err
	}
	if commit.did != did {
		return Signed{}, refuse(Malformed, "the signed commit is of %s, not of %s", commit.did, did)
	}
	if err := v.checkRev(commit.rev); err != nil {
		return Signed{}, err
	}
	account, err := v.keys.check(ctx, commit)
	if err != nil {
		return Signed{}, err
	}
	return Signed{DID: did, Rev: commit.rev, CID: root, Data: commit.data, PDS: account.PDSEndpoint(), Handle: declaredHandle(account)}, nil
}

// blockCID is the CID under which a repository has a DAG-CBOR block.
func blockCID(block []byte) (cid.Cid, error) {
	sum := sha256.Sum256(block)
	return parseCID(append([]byte{1, cid.DagCBOR, 0x12, 32}, sum[:]...))
}

// IsRefusal tells a commit that does not hold from a failure to find out.
func IsRefusal(err error) (*Error, bool) {
	var refusal *Error
	ok := errors.As(err, &refusal)
	return refusal, ok
}
