package verify_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

func rawEvent(change func(d *draft, head block) []byte) func(*forger) *event {
	return func(f *forger) *event {
		d := f.writes()
		msg := d.seal()
		var signed bytes.Buffer
		require.NoError(f.t, d.commit.MarshalCBOR(&signed))
		msg.Blocks = change(d, dagCBOR(signed.Bytes()))
		return msg
	}
}

func (d *draft) all() []block { return slices.Concat(d.nodes, d.records) }

// headed has the draft's blocks after another header, of which %s is the root.
func headed(header string) func(*forger) *event {
	return rawEvent(func(d *draft, head block) []byte {
		out := carHeader(strings.ReplaceAll(header, "%s", string(head.cid.Bytes())))
		return append(out, carOf(head.cid, append(d.all(), head)...)[59:]...)
	})
}

// section is a further section with a CID of another kind.
func foreignSection(codec, hash uint64, length int) func(*forger) *event {
	return rawEvent(func(d *draft, head block) []byte {
		sum, err := multihash.Sum([]byte("x"), hash, length)
		require.NoError(d.f.t, err)
		c := cid.NewCidV1(codec, sum)
		return append(carOf(head.cid, append(d.all(), head)...), carSection(c.Bytes(), []byte("x"))...)
	})
}

var blockRules = map[string]rule{
	"the order of blocks is free": {
		holds:  rawEvent(func(d *draft, head block) []byte { return carOf(head.cid, append(d.all(), head)...) }),
		breaks: rawEvent(func(d *draft, head block) []byte { return carOf(head.cid, d.all()...) }), want: verify.Blocks,
	},
	"blocks too many are no fault": {
		holds:  drafted(func(d *draft) { d.extra = append(d.records, elsewhere) }),
		breaks: drafted(func(d *draft) { d.extra = []block{{elsewhere.cid, []byte("\x64here")}} }), want: verify.Blocks,
	},
	"the tree's root is there":        {breaks: drafted(func(d *draft) { d.nodes = d.nodes[1:] }), want: verify.Blocks},
	"the nodes of a change are there": {breaks: drafted(func(d *draft) { d.nodes = d.nodes[:1] }), want: verify.Tree},
	"the records of ops are there":    {breaks: drafted(func(d *draft) { d.records = d.records[1:] }), want: verify.Blocks},
	"the CAR's root is a commit": {breaks: func(f *forger) *event {
		d := f.writes()
		d.seal()
		return d.publish(d.nodes[0])
	}, want: verify.Blocks},
	"a CAR has a header": {breaks: altered(func(m *event) { m.Blocks = nil }), want: verify.Blocks},
	"a CAR is of version 1": {
		holds:  headed("\xa2\x65roots\x81\xd8\x2a\x58\x25\x00%s\x67version\x01"),
		breaks: headed("\xa2\x65roots\x81\xd8\x2a\x58\x25\x00%s\x67version\x02"), want: verify.Blocks,
	},
	"the first of a CAR's roots counts": {
		holds:  headed("\xa2\x65roots\x82\xd8\x2a\x58\x25\x00%s\xd8\x2a\x58\x25\x00" + elsewhere.cid.KeyString() + "\x67version\x01"),
		breaks: headed("\xa2\x65roots\x82\xd8\x2a\x58\x25\x00" + elsewhere.cid.KeyString() + "\xd8\x2a\x58\x25\x00%s\x67version\x01"), want: verify.Malformed,
	},
	"a CAR has a root": {breaks: headed("\xa2\x65roots\x80\x67version\x01"), want: verify.Blocks},
	"a CAR's header has 1,024 bytes": {
		holds:  headed("\xa3\x65roots\x81\xd8\x2a\x58\x25\x00%s\x66unused\x59\x03\xbc" + strings.Repeat("x", 956) + "\x67version\x01"),
		breaks: headed("\xa3\x65roots\x81\xd8\x2a\x58\x25\x00%s\x66unused\x59\x03\xbd" + strings.Repeat("x", 957) + "\x67version\x01"), want: verify.Limit,
	},
	"a CAR has 20,000 blocks": {
		holds:  func(f *forger) *event { return f.sections(verify.MaxSections) },
		breaks: func(f *forger) *event { return f.sections(verify.MaxSections + 1) }, want: verify.Limit,
	},
	"a section does not end after the CAR": {breaks: altered(func(m *event) { m.Blocks = m.Blocks[:len(m.Blocks)-1] }), want: verify.Blocks},
	"a section has a CID":                  {breaks: altered(func(m *event) { m.Blocks = append(m.Blocks, 1, 'x') }), want: verify.Blocks},
	"a section's length has an end":        {breaks: altered(func(m *event) { m.Blocks = append(m.Blocks, bytes.Repeat([]byte{0xff}, 11)...) }), want: verify.Blocks},
	"a CID's codec is DAG-CBOR or raw": {
		holds:  foreignSection(cid.Raw, multihash.SHA2_256, -1),
		breaks: foreignSection(cid.DagProtobuf, multihash.SHA2_256, -1), want: verify.Blocks,
	},
	"a CID's hash is SHA-256":  {breaks: foreignSection(cid.Raw, multihash.SHA2_512, -1), want: verify.Blocks},
	"a CID's hash is whole":    {breaks: foreignSection(cid.Raw, multihash.SHA2_256, 20), want: verify.Blocks},
	"a CID does not hold data": {breaks: foreignSection(cid.Raw, multihash.IDENTITY, -1), want: verify.Blocks},
	"the signed commit is canonical DAG-CBOR": {breaks: drafted(func(d *draft) {
		d.block = func(b []byte) []byte { // version 3 in two bytes
			return append(b[:len(b)-1:len(b)-1], 0x18, 0x03)
		}
	}), want: verify.Blocks},
	"nothing follows the signed commit": {breaks: drafted(func(d *draft) { d.block = func(b []byte) []byte { return append(b, 0) } }), want: verify.Blocks},
	"the signed commit lacks nothing": {breaks: drafted(func(d *draft) {
		d.block = func(b []byte) []byte { // without prev
			out := bytes.Replace(b, []byte("\x64prev\xf6"), nil, 1)
			out[0]--
			return out
		}
	}), want: verify.Blocks},
}

// sections has an exact number of blocks.
func (f *forger) sections(n int) *event {
	d := f.writes()
	for i := len(d.all()) + 1; i < n; i++ {
		d.extra = append(d.extra, dagCBOR([]byte{0x19, byte(i >> 8), byte(i)}))
	}
	return d.seal()
}

// only is a commit of one record in a hand-made tree. What undoing it would give does
// not matter: the rules of nodes are looked at before. So the event that holds must
// be refused for that, and no other reason.
func only(nodes ...block) func(*forger) *event {
	return func(f *forger) *event { return f.writes().tree(nodes...).seal() }
}

func ptr(b block) *cid.Cid { return &b.cid }

var (
	low0, low1, low2 = keyAt(0, 0), keyAt(0, 1), keyAt(0, 2)
	mid              = keyAt(1, 0)
	leaf             = node(nil, entry(low0, nil))
)

// compressed is the entry of a key after another.
func compressed(key, last string, less int) mst.EntryData {
	shared := mst.CountPrefixLen([]byte(key), []byte(last)) - less
	e := entry(key[shared:], nil)
	e.PrefixLen = int64(shared)
	return e
}

func nodeRules() map[string]rule {
	keys := []string{low0, low1, low2, mid}
	slices.Sort(keys)
	sorted := []string{low0, low1, low2}
	slices.Sort(sorted)
	plain := only(node(nil, entry(sorted[0], nil), compressed(sorted[1], sorted[0], 0)))
	return map[string]rule{
		"a node's keys are in order":                 {plain, only(node(nil, entry(sorted[1], nil), compressed(sorted[0], sorted[1], 0))), verify.Tree},
		"a node's keys are not twice":                {plain, only(node(nil, entry(low0, nil), mst.EntryData{PrefixLen: int64(len(low0)), Value: elsewhere.cid})), verify.Tree},
		"a key is abbreviated by all that it shares": {plain, only(node(nil, entry(sorted[0], nil), compressed(sorted[1], sorted[0], 1))), verify.Tree},
		"a key shares no more than there is":         {plain, only(node(nil, mst.EntryData{PrefixLen: 1, KeySuffix: []byte(low0), Value: elsewhere.cid})), verify.Tree},
		"a key has bytes":                            {plain, only(node(nil, mst.EntryData{Value: elsewhere.cid})), verify.Tree},
		"a key has 1,024 bytes":                      {only(node(nil, entry(tall(1024), nil))), only(node(nil, entry(tall(1025), nil))), verify.Tree},
		"a node's keys are of one height":            {plain, only(node(nil, twoHeights()...)), verify.Tree},
		"a subtree is one height below":              {only(node(ptr(below(mid)), entry(mid, nil)), below(mid)), only(node(ptr(below(keyAt(2, 0))), entry(keyAt(2, 0), nil)), below(keyAt(2, 0))), verify.Tree},
		"a subtree's keys lie between those around it": {
			only(node(ptr(below(mid)), entry(mid, nil)), below(mid)),
			only(node(nil, entry(mid, ptr(below(mid)))), below(mid)), verify.Tree,
		},
		"a left subtree's keys come before": {
			only(node(ptr(below(mid)), entry(mid, nil)), below(mid)),
			only(node(ptr(above(mid)), entry(mid, nil)), above(mid)), verify.Tree,
		},
		"there is nothing below height 0":    {plain, only(node(ptr(leaf), entry(low1, nil))), verify.Tree},
		"a node is not empty":                {only(node(ptr(below(mid)), entry(mid, nil)), below(mid)), only(node(ptr(node(nil)), entry(mid, nil)), node(nil)), verify.Tree},
		"a root has keys":                    {plain, only(node(ptr(leaf)), leaf), verify.Tree},
		"a node is canonical DAG-CBOR":       {plain, only(dagCBOR(append(bytes.Clone(leaf.data), 0))), verify.Tree},
		"a node has no further property":     {plain, only(dagCBOR([]byte("\xa3\x61e\x80\x61l\xf6\x61m\x01"))), verify.Tree},
		"a link is of a repository's kind":   {plain, only(dagCBOR(bytes.Replace(bytes.Clone(leaf.data), []byte{0x12, 0x20}, []byte{0x16, 0x20}, 1))), verify.Tree},
		"a list is no longer than its block": {plain, only(dagCBOR([]byte("\xa2\x61e\x9b\x00\x00\x00\xff\xff\xff\xff\xff\x61l\xf6"))), verify.Tree},
	}
}

// below is a node of one key of height 0 that sorts before another.
func below(key string) block {
	for n := 0; ; n++ {
		if low := keyAt(0, n); low < key {
			return node(nil, entry(low, nil))
		}
	}
}

// above is the same, of a key that sorts after.
func above(key string) block {
	for n := 0; ; n++ {
		if low := keyAt(0, n); low > key {
			return node(nil, entry(low, nil))
		}
	}
}

func twoHeights() []mst.EntryData {
	keys := []string{low0, mid}
	slices.Sort(keys)
	return []mst.EntryData{entry(keys[0], nil), compressed(keys[1], keys[0], 0)}
}

// tall is a path of n bytes at height 0.
func tall(n int) string {
	for i := 0; ; i++ {
		p := path(fmt.Sprintf("%05d", i))
		p += strings.Repeat("x", n-len(p))
		if mst.HeightForKey([]byte(p)) == 0 {
			return p
		}
	}
}
