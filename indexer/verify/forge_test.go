package verify_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// forger is an account whose key we hold: it can sign what no host would publish.
type forger struct {
	t        testing.TB
	did      syntax.DID
	key      atcrypto.PrivateKey
	keys     *keys
	verifier *verify.Verifier
	tree     mst.Tree
	rev      syntax.TID
	data     cid.Cid // root of the tree at rev
	records  map[string]block
}

type block struct {
	cid  cid.Cid
	data []byte
}

// keys is a directory of one account, which counts how often it is asked for and
// made to forget.
type keys struct {
	account         identity.Identity
	cached          *identity.Identity
	lookups, purges atomic.Int64
}

func (k *keys) LookupDID(_ context.Context, did syntax.DID) (*identity.Identity, error) {
	if did != k.account.DID {
		return nil, identity.ErrDIDNotFound
	}
	if k.cached == nil {
		k.lookups.Add(1)
		fresh := k.account
		k.cached = &fresh
	}
	return k.cached, nil
}

func (k *keys) Purge(context.Context, syntax.AtIdentifier) error {
	k.purges.Add(1)
	k.cached = nil
	return nil
}

func (k *keys) publish(t testing.TB, private atcrypto.PrivateKey) {
	public, err := private.PublicKey()
	require.NoError(t, err)
	k.account.Keys = map[string]identity.VerificationMethod{"atproto": {Type: "Multikey", PublicKeyMultibase: public.Multibase()}}
}

func k256(t testing.TB) atcrypto.PrivateKey {
	key, err := atcrypto.GeneratePrivateKeyK256()
	require.NoError(t, err)
	return key
}

func p256(t testing.TB) atcrypto.PrivateKey {
	key, err := atcrypto.GeneratePrivateKeyP256()
	require.NoError(t, err)
	return key
}

// newForger makes an account with 60 records, which are enough for a tree of several nodes.
func newForger(t testing.TB, options ...verify.Option) *forger {
	f := &forger{t: t, did: "did:plc:forgerforgerforgerforger", keys: &keys{}, tree: mst.NewEmptyTree(), records: map[string]block{}}
	f.keys.account.DID = f.did
	f.rotate(k256(t))
	f.verifier = verify.New(f.keys, options...)
	writes := map[string]string{}
	for i := range 60 {
		writes[path(fmt.Sprintf("base%02d", i))] = fmt.Sprint("base", i)
	}
	f.accept(f.draft(writes).seal())
	return f
}

func (f *forger) rotate(key atcrypto.PrivateKey) {
	f.key = key
	f.keys.publish(f.t, key)
}

func (f *forger) accept(msg *comatproto.SyncSubscribeRepos_Commit) verify.Verified {
	f.t.Helper()
	verified, err := f.verifier.Commit(f.t.Context(), msg, all)
	require.NoError(f.t, err)
	return verified
}

func path(rkey string) string { return string(note) + "/" + rkey }

func dagCBOR(data []byte) block {
	c, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
	if err != nil {
		panic(err)
	}
	return block{c, data}
}

// draft is an event that holds, in parts: what a test changes before it seals it is
// signed as it is then.
type draft struct {
	f       *forger
	ops     []*comatproto.SyncSubscribeRepos_RepoOp
	nodes   []block // of the whole tree, the root first
	records []block
	extra   []block
	commit  repo.Commit
	since   *string
	prev    *cid.Cid
	sign    func(unsigned []byte) []byte
	block   func(signed []byte) []byte // the commit's block, as it is published
}

// draft makes the writes (path to text; empty deletes) in the forger's tree.
func (f *forger) draft(writes map[string]string) *draft {
	d := &draft{f: f, block: func(signed []byte) []byte { return signed }}
	d.sign = func(unsigned []byte) []byte {
		sig, err := f.key.HashAndSign(unsigned)
		require.NoError(f.t, err)
		return sig
	}
	if f.rev != "" {
		since, prev := string(f.rev), f.data
		d.since, d.prev = &since, &prev
	}
	paths := make([]string, 0, len(writes))
	for p := range writes {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		d.write(p, writes[p])
	}
	root, err := f.tree.RootCID()
	require.NoError(f.t, err)
	d.addNodes(f.tree.Root)
	now := max(f.rev.Integer()+1<<10, syntax.NewTIDNow(0).Integer())
	rev := syntax.NewTIDFromInteger(now)
	f.rev, f.data = rev, *root
	d.commit = repo.Commit{DID: string(f.did), Version: repo.ATPROTO_REPO_VERSION, Data: *root, Rev: string(rev)}
	return d
}

func (d *draft) write(p, text string) {
	f := d.f
	prev, err := f.tree.Get([]byte(p))
	require.NoError(f.t, err)
	op := &comatproto.SyncSubscribeRepos_RepoOp{Path: p, Action: "create", Prev: (*lexutil.LexLink)(prev)}
	if prev != nil {
		op.Action = "update"
	}
	if text == "" {
		op.Action = "delete"
		_, err = f.tree.Remove([]byte(p))
		if f.tree.IsEmpty() {
			f.tree = mst.NewEmptyTree()
		}
	} else {
		value := dagCBOR(append([]byte{0x78, byte(len(text))}, text...))
		op.Cid = (*lexutil.LexLink)(&value.cid)
		d.records = append(d.records, value)
		_, err = f.tree.Insert([]byte(p), value.cid)
	}
	require.NoError(f.t, err)
	d.ops = append(d.ops, op)
}

func (d *draft) addNodes(n *mst.Node) {
	data := n.NodeData()
	raw, c, err := data.Bytes()
	require.NoError(d.f.t, err)
	d.nodes = append(d.nodes, block{*c, raw})
	for _, e := range n.Entries {
		if e.Child != nil {
			d.addNodes(e.Child)
		}
	}
}

// tree replaces the draft's tree with hand-made nodes, the root first.
func (d *draft) tree(nodes ...block) *draft {
	d.nodes, d.commit.Data = nodes, nodes[0].cid
	return d
}

// seal signs the draft and makes the event.
func (d *draft) seal() *comatproto.SyncSubscribeRepos_Commit {
	d.commit.Sig = nil
	unsigned, err := d.commit.UnsignedBytes()
	require.NoError(d.f.t, err)
	d.commit.Sig = d.sign(unsigned)
	var signed bytes.Buffer
	require.NoError(d.f.t, d.commit.MarshalCBOR(&signed))
	head := dagCBOR(d.block(signed.Bytes()))
	return d.publish(head)
}

func (d *draft) publish(head block) *comatproto.SyncSubscribeRepos_Commit {
	msg := &comatproto.SyncSubscribeRepos_Commit{
		Repo: d.commit.DID, Rev: d.commit.Rev, Since: d.since, Commit: lexutil.LexLink(head.cid), Ops: d.ops, Seq: 1,
		PrevData: (*lexutil.LexLink)(d.prev), Time: time.Now().UTC().Format(time.RFC3339),
		Blocks: carOf(head.cid, slices.Concat([]block{head}, d.nodes, d.records, d.extra)...),
	}
	return msg
}

func carOf(root cid.Cid, blocks ...block) []byte {
	out := carHeader("\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + root.KeyString() + "\x67version\x01")
	for _, b := range blocks {
		out = append(out, carSection(b.cid.Bytes(), b.data)...)
	}
	return out
}

func carHeader(header string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(header))), header...)
}

func carSection(c, data []byte) []byte {
	return slices.Concat(binary.AppendUvarint(nil, uint64(len(c)+len(data))), c, data)
}

// node is a tree node of entries, with a left subtree or none.
func node(left *cid.Cid, entries ...mst.EntryData) block {
	if entries == nil {
		entries = []mst.EntryData{}
	}
	data := mst.NodeData{Left: left, Entries: entries}
	raw, c, err := data.Bytes()
	if err != nil {
		panic(err)
	}
	return block{*c, raw}
}

// keyAt is the nth record path whose place is at a height of the tree.
func keyAt(height, n int) string {
	for i := 0; ; i++ {
		p := path(fmt.Sprintf("k%05d", i))
		if mst.HeightForKey([]byte(p)) == height {
			if n--; n < 0 {
				return p
			}
		}
	}
}

func entry(key string, right *cid.Cid) mst.EntryData {
	return mst.EntryData{KeySuffix: []byte(key), Value: dagCBOR([]byte{0xa0}).cid, Right: right}
}

func highS(order []byte) func([]byte) []byte {
	return func(sig []byte) []byte {
		out := bytes.Clone(sig)
		borrow := 0
		for i := 31; i >= 0; i-- {
			v := int(order[i]) - int(sig[32+i]) - borrow
			if borrow = 0; v < 0 {
				v, borrow = v+256, 1
			}
			out[32+i] = byte(v)
		}
		return out
	}
}
