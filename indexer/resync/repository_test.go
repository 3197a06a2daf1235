package resync

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	blockstore "github.com/ipfs/go-ipfs-blockstore"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

const (
	corpora     = syntax.NSID("pub.layers.corpus.corpus")
	expressions = syntax.NSID("pub.layers.expression.expression")
	posts       = syntax.NSID("app.bsky.feed.post")
)

var layersAlone = newScope([]string{string(corpora), string(expressions)})

// section is a CAR's, with its CID and block.
type section struct {
	cid   cid.Cid
	block []byte
}

func cidOf(block []byte) cid.Cid {
	sum := sha256.Sum256(block)
	c, err := cid.Cast(append([]byte{1, cid.DagCBOR, 0x12, 32}, sum[:]...))
	if err != nil {
		panic(err)
	}
	return c
}

func newSection(block []byte) section { return section{cidOf(block), block} }

// encode writes a CAR anew.
func encode(root cid.Cid, sections ...section) []byte {
	var header bytes.Buffer
	header.WriteString("\xa2\x65roots\x81\xd8\x2a\x58\x25\x00")
	header.Write(root.Bytes())
	header.WriteString("\x67version\x01")
	out := binary.AppendUvarint(nil, uint64(header.Len()))
	out = append(out, header.Bytes()...)
	for _, s := range sections {
		out = binary.AppendUvarint(out, uint64(36+len(s.block)))
		out = append(append(out, s.cid.Bytes()...), s.block...)
	}
	return out
}

// decode takes a CAR apart, without a look at hashes.
func decode(t testing.TB, car []byte) (root cid.Cid, sections []section) {
	t.Helper()
	for first := true; len(car) > 0; first = false {
		length, n := binary.Uvarint(car)
		content := car[n : n+int(length)]
		car = car[n+int(length):]
		if first {
			c, err := cid.Cast(content[len(content)-9-36 : len(content)-9])
			require.NoError(t, err)
			root = c
			continue
		}
		c, err := cid.Cast(content[:36])
		require.NoError(t, err)
		sections = append(sections, section{c, content[36:]})
	}
	return root, sections
}

// download is getRepo.
func download(t testing.TB, base string, did syntax.DID) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/xrpc/com.atproto.sync.getRepo?did="+string(did), nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	car, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return car
}

// network is a simulated world with a server.
func network(t testing.TB) (*simulate.World, *simulate.Server) {
	t.Helper()
	world, err := simulate.NewWorld(simulate.Config{Seed: 11})
	require.NoError(t, err)
	server := simulate.NewServer(world, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() {
		_ = server.Stop()
		_ = world.Close()
	})
	return world, server
}

func corpusValue(name string) map[string]any {
	return map[string]any{"$type": string(corpora), "name": name, "createdAt": "2025-05-01T00:00:00.000Z"}
}

// mixed makes an account with records of three collections; with n of each.
func mixed(t testing.TB, world *simulate.World, name string, n int) syntax.DID {
	t.Helper()
	did, err := world.CreateAccount(name)
	require.NoError(t, err)
	for chunk := range slices.Chunk(numbers(n), 60) {
		var writes []simulate.Write
		for _, i := range chunk {
			rkey := syntax.RecordKey(fmt.Sprintf("r%05d", i))
			writes = append(writes,
				simulate.Create(corpora, rkey, corpusValue(fmt.Sprint(name, i))),
				simulate.Create(posts, rkey, map[string]any{"$type": string(posts), "text": fmt.Sprint(name, i), "createdAt": "2025-05-01T00:00:00.000Z"}),
				simulate.Create(expressions, rkey, map[string]any{"$type": string(expressions), "id": fmt.Sprint(i), "kind": "document", "text": fmt.Sprint(name, i), "createdAt": "2025-05-01T00:00:00.000Z"}))
		}
		_, err := world.Commit(did, writes...)
		require.NoError(t, err)
	}
	return did
}

func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// spoolOf reads a CAR with plain limits.
func spoolOf(t testing.TB, car []byte) (*spool, error) {
	t.Helper()
	sp, err := newSpooler(t.TempDir(), Limits{Bytes: 1 << 30, Blocks: 1 << 20}).read(t.Context(), bytes.NewReader(car))
	if err == nil {
		t.Cleanup(sp.close)
	}
	return sp, err
}

// entry is a key in a tree and its value.
type entry struct {
	key   string
	value cid.Cid
}

// walkAll goes through a tree, and reads each record's block.
func walkAll(blocks blocks, root cid.Cid, scope scope) (all []entry, err error) {
	w, err := newWalk(blocks, root, scope)
	if err != nil {
		return nil, err
	}
	for {
		key, value, err := w.next()
		if err != nil || key == nil {
			return all, err
		}
		if _, err := blocks.get(value); err != nil {
			return all, err
		}
		all = append(all, entry{string(key), value})
	}
}

// treeOf builds a tree with indigo, and returns its nodes' blocks.
func treeOf(t testing.TB, entries []entry) (root cid.Cid, nodes []section) {
	t.Helper()
	tree := mst.NewEmptyTree()
	for _, e := range entries {
		_, err := tree.Insert([]byte(e.key), e.value)
		require.NoError(t, err)
	}
	var kept keep
	c, err := tree.WriteDiffBlocks(context.WithoutCancel(t.Context()), &kept)
	require.NoError(t, err)
	if len(kept.nodes) == 0 { // an empty tree is not written
		data := tree.Root.NodeData()
		block, _, err := data.Bytes()
		require.NoError(t, err)
		kept.nodes = []section{newSection(block)}
	}
	return *c, kept.nodes
}

// keep is what mst writes to.
type keep struct {
	blockstore.Blockstore
	nodes []section
}

func (k *keep) Put(_ context.Context, b blockformat.Block) error {
	k.nodes = append(k.nodes, section{b.Cid(), b.RawData()})
	return nil
}
