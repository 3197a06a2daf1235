package resync

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

// requireReason fails unless err is a refusal for that reason.
func requireReason(t testing.TB, want Reason, err error) {
	t.Helper()
	refusal, ok := IsRefusal(err)
	require.True(t, ok, "%v is no refusal", err)
	require.Equal(t, want, refusal.Reason, "%v", err)
}

func TestRealRepositoriesAreReadWhole(t *testing.T) {
	t.Parallel()
	world, server := network(t)
	did := mixed(t, world, "whole", 1500)
	car := download(t, server.URL(), did)
	root, sections := decode(t, car)
	var data cid.Cid
	{
		sp, err := spoolOf(t, car)
		require.NoError(t, err)
		require.Equal(t, root, sp.root)
		require.EqualValues(t, len(car), sp.size)
		require.Equal(t, len(sections), sp.index.blocks)
		data = dataOf(t, sp)
		all, err := walkAll(sp, data, newScope([]string{string(corpora), "app.bsky.*", string(expressions)}))
		require.NoError(t, err)
		require.Len(t, all, 4500)
		require.True(t, slices.IsSortedFunc(all, func(a, b entry) int { return bytes.Compare([]byte(a.key), []byte(b.key)) }))
	}
	var want []entry
	for _, e := range slices.Collect(world.Records(viewAll)) {
		if e.Key.Collection != posts {
			c, err := cid.Decode(string(e.CID))
			require.NoError(t, err)
			want = append(want, entry{e.Key.Path(), c})
		}
	}
	require.Len(t, want, 3000)
	shuffled := slices.Clone(sections)
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	twice := append(slices.Clone(shuffled), sections...)
	surplus := append([]section{newSection([]byte("nobody refers to it"))}, shuffled...)
	for name, car := range map[string][]byte{
		"as it came": car, "in any order": encode(root, shuffled...), "every block twice": encode(root, twice...), "with blocks of nobody": encode(root, surplus...),
	} {
		sp, err := spoolOf(t, car)
		require.NoError(t, err, name)
		counted := &counting{blocks: sp}
		all, err := walkAll(counted, data, layersAlone)
		require.NoError(t, err, name)
		require.Equal(t, want, all, name)
		require.Less(t, counted.reads, 3000+1500, "%s: subtrees out of scope are passed by", name)
	}
}

// counting counts reads.
type counting struct {
	blocks
	reads int
}

func (c *counting) get(at cid.Cid) ([]byte, error) {
	c.reads++
	return c.blocks.get(at)
}

func TestBrokenRepositoriesAreRefused(t *testing.T) {
	t.Parallel()
	world, server := network(t)
	did := mixed(t, world, "broken", 300)
	car := download(t, server.URL(), did)
	root, sections := decode(t, car)
	good, err := spoolOf(t, car)
	require.NoError(t, err)
	data := dataOf(t, good)
	all, err := walkAll(good, data, layersAlone)
	require.NoError(t, err)
	record := slices.IndexFunc(sections, func(s section) bool { return s.cid == all[7].value })
	node := slices.IndexFunc(sections, func(s section) bool { return s.cid == data })
	altered := func(i int) []section {
		list := slices.Clone(sections)
		list[i].block = bytes.Clone(list[i].block)
		list[i].block[len(list[i].block)/2] ^= 1
		return list
	}
	headerLength := int(car[0]) + 1
	withHeader := func(header string) []byte {
		return append(append([]byte{byte(len(header))}, header...), car[headerLength:]...)
	}
	long := binary.AppendUvarint(slices.Clone(car), maxSection+1)
	strange := slices.Clone(sections[0].cid.Bytes())
	strange[2] = 0x13 // SHA-512
	for name, c := range map[string]struct {
		want Reason
		car  []byte
	}{
		"nothing at all":                 {Truncated, nil},
		"cut in the header":              {Truncated, car[:20]},
		"cut in a section":               {Truncated, car[:len(car)-5]},
		"cut in a length":                {Truncated, append(slices.Clone(car), 0x80)},
		"cut between sections":           {Missing, encode(root, sections[:len(sections)-1]...)},
		"only the header":                {Missing, encode(root)},
		"without a record":               {Missing, encode(root, slices.Delete(slices.Clone(sections), record, record+1)...)},
		"without a node":                 {Missing, encode(root, slices.Delete(slices.Clone(sections), node, node+1)...)},
		"another record under its CID":   {Altered, encode(root, altered(record)...)},
		"another node under its CID":     {Altered, encode(root, altered(node)...)},
		"another commit under its CID":   {Altered, encode(root, altered(0)...)},
		"of version 2":                   {Malformed, withHeader("\xa1\x67version\x02")},
		"without a root":                 {Malformed, withHeader("\xa2\x65roots\x80\x67version\x01")},
		"with a header of no map":        {Malformed, withHeader("\x80")},
		"with an empty section":          {Malformed, append(slices.Clone(car), 0)},
		"with a section too short":       {Malformed, append(slices.Clone(car), 3, 1, 2, 3)},
		"with a CID of another kind":     {Malformed, append(append(slices.Clone(car), 40), append(strange, 1, 2, 3, 4)...)},
		"with a section too long":        {TooLarge, append(long, make([]byte, maxSection+1)...)},
		"with a length of many bytes":    {TooLarge, append(slices.Clone(car), bytes.Repeat([]byte{0xff}, 12)...)},
		"with a header too long":         {TooLarge, append([]byte{0xff, 0x7f}, make([]byte, 1<<14)...)},
		"pointing to another repository": {Missing, encode(cidOf([]byte("elsewhere")), sections...)},
	} {
		_, err := readAll(t, c.car, data)
		require.Error(t, err, name)
		refusal, ok := IsRefusal(err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, c.want, refusal.Reason, "%s: %v", name, err)
	}
}

// readAll reads a CAR the whole way: commit, nodes and records in scope.
func readAll(t testing.TB, car []byte, data cid.Cid) ([]entry, error) {
	sp, err := spoolOf(t, car)
	if err != nil {
		return nil, err
	}
	if _, err := sp.get(sp.root); err != nil {
		return nil, err
	}
	return walkAll(sp, data, layersAlone)
}

// dataOf finds the tree's root in the commit.
func dataOf(t testing.TB, sp *spool) cid.Cid {
	t.Helper()
	commit, err := sp.get(sp.root)
	require.NoError(t, err)
	at := bytes.Index(commit, []byte("\x64data\xd8\x2a\x58\x25\x00"))
	require.Positive(t, at)
	c, err := cid.Cast(bytes.Clone(commit[at+10 : at+46]))
	require.NoError(t, err)
	return c
}

func TestARepositoryMayBeSoLargeAndNoLarger(t *testing.T) {
	t.Parallel()
	var sections []section
	for i := range 200 {
		sections = append(sections, newSection(binary.BigEndian.AppendUint64(make([]byte, 1000), uint64(i))))
	}
	car := encode(sections[0].cid, sections...)
	read := func(limits Limits, body io.Reader) error {
		sp, err := newSpooler(t.TempDir(), limits).read(t.Context(), body)
		if err == nil {
			sp.close()
		}
		return err
	}
	size := int64(len(car))
	require.NoError(t, read(Limits{Bytes: size, Blocks: 200}, bytes.NewReader(car)))
	requireReason(t, TooLarge, read(Limits{Bytes: size - 1, Blocks: 200}, bytes.NewReader(car)))
	requireReason(t, TooLarge, read(Limits{Bytes: size, Blocks: 199}, bytes.NewReader(car)))
	requireReason(t, TooLarge, read(Limits{Bytes: size, Blocks: 300}, bytes.NewReader(append(slices.Clone(car), 0x01))))

	// Of what was compressed, the size that counts is the one before.
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(car)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Less(t, int64(packed.Len()), size/4)
	unpacked, err := gzip.NewReader(&packed)
	require.NoError(t, err)
	requireReason(t, TooLarge, read(Limits{Bytes: size / 2, Blocks: 200}, unpacked))
}

func TestAConnectionThatBreaksIsNoRefusal(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	s := newSection([]byte("block"))
	car := encode(s.cid, s)
	for _, cut := range []int{10, len(car) - 3, len(car)} {
		_, err := newSpooler(t.TempDir(), Limits{Bytes: 1 << 20, Blocks: 10}).read(t.Context(), io.MultiReader(bytes.NewReader(car[:cut]), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken)
		_, ok := IsRefusal(err)
		require.False(t, ok)
		_, ok = asBodyError(err)
		require.True(t, ok, "cut at %d", cut)
	}
}

func TestNothingIsLeftOfASpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSection([]byte("block"))
	sp, err := newSpooler(dir, Limits{Bytes: 1 << 20, Blocks: 10}).read(t.Context(), bytes.NewReader(encode(s.cid, s)))
	require.NoError(t, err)
	defer sp.close()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "the file has no name")
	block, err := sp.get(s.cid)
	require.NoError(t, err)
	require.Equal(t, s.block, block)
}

func TestTheIndexFindsWhatWasAdded(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var x index
	type place struct {
		digest string
		offset int64
		length int
	}
	var places []place
	for i := range 20_000 {
		d := make([]byte, 32)
		for j := range d {
			d[j] = byte(rng.Uint32())
		}
		p := place{string(d), rng.Int64N(maxOffset), i % maxSection}
		places = append(places, p)
		x.add(d, p.offset, p.length)
		x.add(d, p.offset+1, 1) // again, later
	}
	x.sort()
	require.Equal(t, 40_000, x.blocks)
	for _, p := range places {
		offset, length, ok := x.find(p.digest)
		require.True(t, ok)
		require.Equal(t, p.offset, offset)
		require.Equal(t, p.length, length)
	}
	_, _, ok := x.find(string(make([]byte, 32)))
	require.False(t, ok)
}
