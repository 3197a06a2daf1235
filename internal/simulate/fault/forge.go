package fault

import (
	"bytes"
	"slices"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// CorruptHeader makes a frame's header wrong.
func CorruptHeader(pick Pick) *Stream {
	return corrupt("corrupt frame header", pick, func(data []byte) { data[0] ^= 0x40 })
}

// CorruptBody makes a frame's body end early.
func CorruptBody(pick Pick) *Stream {
	return alters("truncated frame", pick, func(f simulate.Frame) [][]byte { return [][]byte{f.Data[:len(f.Data)*3/4]} })
}

// CorruptNoise makes a byte in the middle of the frame wrong, whatever it is.
func CorruptNoise(pick Pick) *Stream {
	return corrupt("corrupt byte", pick, func(data []byte) { data[len(data)/2] ^= 0x08 })
}

func corrupt(name string, pick Pick, alter func([]byte)) *Stream {
	return alters(name, pick, func(f simulate.Frame) [][]byte {
		data := bytes.Clone(f.Data)
		alter(data)
		return [][]byte{data}
	})
}

// forges makes a fault that alters commits, in frames that are well formed.
func forges(name string, pick Pick, alter func(*comatproto.SyncSubscribeRepos_Commit)) *Stream {
	return alters(name, pick, func(f simulate.Frame) [][]byte {
		commit := commitOf(f)
		if commit == nil {
			return [][]byte{f.Data}
		}
		alter(commit)
		return [][]byte{encode(&stream.XRPCStreamEvent{RepoCommit: commit})}
	})
}

// CorruptBlocks makes a byte in a commit's blocks wrong.
func CorruptBlocks(pick Pick, part Part) *Stream {
	return forges("corrupt "+string(part)+" in blocks", pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		c.Blocks = Flip(c.Blocks, part)
	})
}

// MissingBlock leaves a block out.
func MissingBlock(pick Pick, part Part) *Stream {
	return forges("missing "+string(part), pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		c.Blocks = Without(c.Blocks, part)
	})
}

// CorruptSignature makes a byte of the signature wrong; all CIDs fit.
func CorruptSignature(pick Pick) *Stream {
	return forges("corrupt signature", pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		resign(c, func([]byte) []byte { return slices.Repeat([]byte{0x11}, 64) })
	})
}

// WrongKey signs commits with a key that is not the account's.
func WrongKey(pick Pick) *Stream {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		panic(err) // only without randomness
	}
	return forges("signed by another key", pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		resign(c, func(unsigned []byte) []byte {
			signature, err := key.HashAndSign(unsigned)
			if err != nil {
				return nil
			}
			return signature
		})
	})
}

func resign(c *comatproto.SyncSubscribeRepos_Commit, sign func([]byte) []byte) {
	blocks, head := Resigned(c.Blocks, sign)
	if id, err := cid.Cast(head); err == nil {
		c.Blocks, c.Commit = blocks, lexutil.LexLink(id)
	}
}

// WrongFields are the fields of a #commit that a host may state otherwise than the
// signed commit or its tree does.
func WrongFields(pick Pick) []*Stream {
	other := "3zzzzzzzzzzzz"
	set := func(name string, alter func(*comatproto.SyncSubscribeRepos_Commit)) *Stream {
		return forges("forged "+name, pick, alter)
	}
	return []*Stream{
		set("rev", func(c *comatproto.SyncSubscribeRepos_Commit) { c.Rev = "2222222222222" }),
		set("future rev", func(c *comatproto.SyncSubscribeRepos_Commit) { c.Rev = other }),
		set("since", func(c *comatproto.SyncSubscribeRepos_Commit) { c.Since = &other }),
		set("prevData", func(c *comatproto.SyncSubscribeRepos_Commit) { c.PrevData = &c.Commit }),
		set("path", func(c *comatproto.SyncSubscribeRepos_Commit) {
			for _, op := range c.Ops {
				op.Path += "-forged"
			}
		}),
		set("action", func(c *comatproto.SyncSubscribeRepos_Commit) {
			for _, op := range c.Ops {
				op.Action, op.Cid = "delete", nil
			}
		}),
		set("op CID", func(c *comatproto.SyncSubscribeRepos_Commit) {
			for _, op := range c.Ops {
				op.Cid = &c.Commit
			}
		}),
		set("absent ops", func(c *comatproto.SyncSubscribeRepos_Commit) { c.Ops = nil }),
	}
}

// Splice states of commits that they follow the one of a rev, as who hides those in
// between would.
func Splice(pick Pick, since string) *Stream {
	return forges("hidden gap", pick, func(c *comatproto.SyncSubscribeRepos_Commit) { c.Since = &since })
}

// WrongRepository publishes commits as another account's.
func WrongRepository(pick Pick, did string) *Stream {
	return forges("another account's name", pick, func(c *comatproto.SyncSubscribeRepos_Commit) { c.Repo = did })
}

// Legacy leaves out what only hosts of the present protocol send: prevData, and what
// an op replaces.
func Legacy(pick Pick) *Stream {
	return forges("legacy commit without prevData", pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		c.PrevData = nil
		for _, op := range c.Ops {
			op.Prev = nil
		}
	})
}

// TooBig sends commits as hosts of the old protocol did that found them too large:
// without their content.
func TooBig(pick Pick) *Stream {
	return forges("tooBig", pick, func(c *comatproto.SyncSubscribeRepos_Commit) {
		c.TooBig, c.Ops, c.Blocks = true, []*comatproto.SyncSubscribeRepos_RepoOp{}, Without(c.Blocks, Record)
	})
}

// Info is a frame with a notice from the host, such as OutdatedCursor.
func Info(name string) []byte {
	return encode(&stream.XRPCStreamEvent{RepoInfo: &comatproto.SyncSubscribeRepos_Info{Name: name}})
}

// UnknownType is a frame of a type that does not exist yet.
func UnknownType() []byte {
	return append([]byte{0xa2, 0x61, 't', 0x67, '#', 'f', 'u', 't', 'u', 'r', 'e', 0x62, 'o', 'p', 0x01}, 0xa0)
}
