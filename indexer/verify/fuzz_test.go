package verify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car"
	carutil "github.com/ipld/go-car/util"
	"github.com/stretchr/testify/require"
)

func mustCID(block []byte) cid.Cid {
	c, err := blockCID(block)
	if err != nil {
		panic(err)
	}
	return c
}

// FuzzCAR holds that another implementation reads the same blocks under the same root
// in what is accepted, and that each has the content that its CID names.
func FuzzCAR(f *testing.F) {
	one, two := []byte("\x61a"), []byte("\xa1\x61b\x01")
	var whole bytes.Buffer
	require.NoError(f, car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{mustCID(one)}, Version: 1}, &whole))
	for _, block := range [][]byte{one, two, one} {
		require.NoError(f, carutil.LdWrite(&whole, mustCID(block).Bytes(), block))
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:59])
	f.Add([]byte("\x0b\xa1\x67version\x01"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, root, err := readCAR(data)
		if err != nil {
			_, refused := IsRefusal(err)
			require.True(t, refused)
			return
		}
		theirs, err := car.NewCarReader(bytes.NewReader(data))
		require.NoError(t, err)
		require.Equal(t, theirs.Header.Roots[0], root)
		seen := blockMap{}
		for {
			block, err := theirs.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			seen[block.Cid()] = block.RawData()
		}
		require.Equal(t, len(seen), len(blocks))
		for c, block := range blocks {
			require.True(t, bytes.Equal(seen[c], block))
			sum := sha256.Sum256(block)
			require.Equal(t, sum[:], c.Bytes()[4:])
		}
	})
}

// FuzzSignedCommit holds that what is accepted is the one encoding of a commit, and
// that what is taken as signed is it without its signature.
func FuzzSignedCommit(f *testing.F) {
	commit := repo.Commit{DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Version: 3, Data: emptyTree, Rev: "3jzfcijpj2z2a", Sig: bytes.Repeat([]byte("s"), 64)}
	for _, prev := range []*cid.Cid{nil, &emptyTree} {
		commit.Prev = prev
		var block bytes.Buffer
		require.NoError(f, commit.MarshalCBOR(&block))
		f.Add(block.Bytes())
		later := bytes.Replace(block.Bytes(), []byte("\x67version"), []byte("\x65later\x82\xa1\x61a\xf5\x20\x67version"), 1)
		later[0]++
		f.Add(later)
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		ours, err := parseCommit(block)
		if err != nil {
			_, refused := IsRefusal(err)
			require.True(t, refused)
			return
		}
		var theirs repo.Commit
		require.NoError(t, theirs.UnmarshalCBOR(bytes.NewReader(block)))
		require.Equal(t, theirs.DID, string(ours.did))
		require.Equal(t, theirs.Rev, string(ours.rev))
		require.Equal(t, theirs.Data, ours.data)
		require.True(t, bytes.Equal(theirs.Sig, ours.sig))
		if block[0] != cborMap<<5|6 {
			return // properties that the package above does not keep
		}
		if len(ours.sig) > 0 {
			var again bytes.Buffer
			require.NoError(t, theirs.MarshalCBOR(&again))
			require.Equal(t, block, again.Bytes())
		}
		unsigned, err := theirs.UnsignedBytes()
		require.NoError(t, err)
		require.Equal(t, unsigned, ours.unsigned)
	})
}

// FuzzNode holds that what is accepted as a node is the one encoding of it, in the
// words of the protocol's own package.
func FuzzNode(f *testing.F) {
	value := mustCID([]byte("\x61v"))
	add := func(left *cid.Cid, entries ...mst.EntryData) {
		node := mst.NodeData{Left: left, Entries: entries}
		block, _, err := node.Bytes()
		require.NoError(f, err)
		f.Add(block)
	}
	add(nil, []mst.EntryData{}...)
	add(&value, mst.EntryData{KeySuffix: []byte("a.b.c/d"), Value: value, Right: &value}, mst.EntryData{PrefixLen: 6, KeySuffix: []byte("e"), Value: value})
	add(nil, mst.EntryData{KeySuffix: bytes.Repeat([]byte("x"), 300), Value: value})
	f.Fuzz(func(t *testing.T, block []byte) {
		r := treeReader{left: maxKeyBytes}
		entries, err := r.entries(block)
		if err != nil {
			return
		}
		theirs, err := mst.NodeDataFromCBOR(bytes.NewReader(block))
		require.NoError(t, err)
		again, _, err := theirs.Bytes()
		require.NoError(t, err)
		require.Equal(t, block, again)
		require.Equal(t, len(theirs.Node(nil).Entries), len(entries))
		for i, e := range theirs.Node(nil).Entries {
			require.Equal(t, e, entries[i])
		}
	})
}

// FuzzTree holds that a tree that is accepted is one: its keys are in order, stand
// where their hashes put them, and a tree that is made of them anew has the same
// root, where all of its nodes are there.
func FuzzTree(f *testing.F) {
	tree := mst.NewEmptyTree()
	for _, key := range []string{"a.b.c/a", "a.b.c/b", "a.b.c/c", "a.b.c/3jzfcijpj2z2a", "a.b.c/3jzfcijpj2z2b", "a.b.d/1", "a.b.d/2", "a.b.d/3"} {
		_, err := tree.Insert([]byte(key), mustCID([]byte("\x61v")))
		require.NoError(f, err)
	}
	var out bytes.Buffer
	root, err := tree.RootCID()
	require.NoError(f, err)
	require.NoError(f, car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{*root}, Version: 1}, &out))
	var write func(n *mst.Node)
	write = func(n *mst.Node) {
		data := n.NodeData()
		block, c, err := data.Bytes()
		require.NoError(f, err)
		require.NoError(f, carutil.LdWrite(&out, c.Bytes(), block))
		for _, e := range n.Entries {
			if e.Child != nil {
				write(e.Child)
			}
		}
	}
	write(tree.Root)
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, root := repaired(data)
		tree, err := readTree(blocks, root)
		if err != nil {
			return
		}
		all := map[string]cid.Cid{}
		last := ""
		require.NoError(t, tree.Walk(func(key []byte, value cid.Cid) error {
			require.Less(t, last, string(key))
			last, all[string(key)] = string(key), value
			return nil
		}))
		if tree.IsPartial() {
			return
		}
		require.NoError(t, tree.Verify())
		again, err := mst.LoadTreeFromMap(all)
		require.NoError(t, err)
		same, err := again.RootCID()
		require.NoError(t, err)
		require.Equal(t, *same, root)
	})
}

// repaired reads the blocks of a CAR whatever their CIDs, and links those that were
// altered to each other again, so that what is found wrong is not their hashes.
func repaired(data []byte) (blockMap, cid.Cid) {
	blocks, order := blockMap{}, []cid.Cid(nil)
	_, rest, err := section(data)
	for err == nil && len(rest) > 0 && len(order) < 50 {
		var content []byte
		if content, rest, err = section(rest); err != nil || len(content) < cidLen {
			break
		}
		c, cidErr := parseCID(content[:cidLen])
		if cidErr != nil {
			break
		}
		blocks[c] = content[cidLen:]
		order = append(order, c)
	}
	root := emptyTree
	for i := len(order) - 1; i >= 0; i-- { // children come after their parents
		block := blocks[order[i]]
		delete(blocks, order[i])
		root = mustCID(block)
		for c, other := range blocks {
			blocks[c] = bytes.ReplaceAll(other, order[i].Bytes(), root.Bytes())
		}
		blocks[root] = block
	}
	return blocks, root
}

// FuzzOp holds that an op that is accepted names a record by a valid AT-URI, which
// leads back to the op's path, and has the links that its action needs.
func FuzzOp(f *testing.F) {
	for _, path := range []string{"a.b.c/d", "a.b.c/3jzfcijpj2z2a", "a.b.c/..", "A.B.c/~", "a.b/c", "a.b.c/d/e", "a.b.c/" + strings.Repeat("x", 513)} {
		for _, action := range []string{"create", "update", "delete"} {
			f.Add(path, action, true, action == "update")
		}
	}
	did := syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	link := lexutil.LexLink(emptyTree)
	f.Fuzz(func(t *testing.T, path, action string, value, prev bool) {
		raw := &comatproto.SyncSubscribeRepos_RepoOp{Path: path, Action: action}
		if value {
			raw.Cid = &link
		}
		if prev {
			raw.Prev = &link
		}
		for _, lenient := range []bool{false, true} {
			ops, err := parseOps(did, []*comatproto.SyncSubscribeRepos_RepoOp{raw}, lenient)
			if err != nil {
				continue
			}
			require.Equal(t, path, ops[0].key.Path())
			uri, err := syntax.ParseATURI(ops[0].key.String())
			require.NoError(t, err)
			require.Equal(t, did, syntax.DID(uri.Authority()))
			require.Equal(t, path, uri.Path())
			require.Equal(t, action != "delete", value)
			require.True(t, lenient && action != "create" || (action != "create") == prev)
			require.Equal(t, action == "create" || prev, invertible(ops))
		}
	})
}
