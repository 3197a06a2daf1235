package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

const (
	expression = syntax.NSID("pub.layers.expression.expression")
	maxRecord  = 1_000_000 // bytes that a record may have
	maxFrame   = 5_000_000 // bytes that a frame may have
)

// TestBadInput sends what no one should send, between what everyone may. Each piece
// ends as promised: the valid is served to the byte, however odd; the invalid is a
// dead letter with its reason; and the stream goes on.
func TestBadInput(t *testing.T) {
	faults := map[int64][][]byte{} // by the event that they are sent before
	w := newWorld(t, simulate.Config{Seed: 5}, simulate.ServerConfig{Alter: func(f simulate.Frame) [][]byte {
		return append(slices.Clone(faults[f.Seq]), f.Data)
	}})
	d := deploy(t, w.upstream())
	s := &submissions{world: w, did: w.account("odd"), letters: map[record.Key]letter{}}
	s.limits()
	s.odd()
	s.hostile()
	s.bar("too-large", s.sized(maxRecord+1))
	forger := s.forge()
	s.frames(faults)

	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.discarded(forger, ix)
	d.Settle(ix)
	want := truthOf(w.World)
	d.projected(want)
	d.letters(s.letters)
	require.Equal(t, map[string]int{"validate": len(s.letters), "frame": 4}, d.letterStages(), "the fetch has settled the commit that was refused")

	api := d.api()
	api.gettable(want)
	api.gone(s.refused())
	api.listed(want, s.handles())
	api.strict(s.did)
	d.verified()
	ix.Stop()
}

// submissions are the records that TestBadInput publishes.
type submissions struct {
	*world
	did     syntax.DID
	letters map[record.Key]letter
}

// limits publishes records that go as far as their lexicons allow, in each place.
func (s *submissions) limits() {
	var writes []simulate.Write
	size := 0
	for _, collection := range followed {
		for i, c := range fixture.Limits(collection) {
			block := s.block(c.Value)
			if len(writes) == 100 || size+len(block) > 1_500_000 {
				s.commit(s.did, writes...)
				writes, size = nil, 0
			}
			write := simulate.Create(collection, syntax.RecordKey(fmt.Sprintf("limit-%d", i)), c.Value)
			writes, size = append(writes, write), size+len(block)
		}
	}
	s.commit(s.did, writes...)
}

func (s *submissions) block(value map[string]any) []byte {
	s.t.Helper()
	block, err := atdata.MarshalCBOR(value)
	require.NoError(s.t, err)
	return block
}

const placeholder = "what is put in place of this text"

// with is the block of a valid expression with an item of our own in it, in a
// property that the lexicon does not know and therefore allows.
func (s *submissions) with(item []byte) []byte {
	s.t.Helper()
	value := fixture.Minimal(expression)
	value["x"] = placeholder
	encoded := append([]byte{0x78, byte(len(placeholder))}, placeholder...)
	block := s.block(value)
	require.Equal(s.t, 1, bytes.Count(block, encoded))
	return bytes.Replace(block, encoded, item, 1)
}

// text is a string in CBOR.
func text(content string) []byte {
	n := len(content)
	return append([]byte{0x7a, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, content...)
}

// odd publishes what is valid, though few would think of it.
func (s *submissions) odd() {
	const everyCharacter = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:~"
	largest := s.sized(maxRecord)
	nul := fixture.Minimal(expression)
	nul["text"] = "before\x00after"
	crowded := s.crowded()
	for rkey, write := range map[string]simulate.Write{
		"nul":          {Collection: expression, Value: nul},
		"greatest":     {Collection: expression, Block: s.with([]byte{0x1b, 0x00, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})},
		"least":        {Collection: expression, Block: s.with([]byte{0x3b, 0x00, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe})},
		"largest":      {Collection: expression, Block: largest},
		"crowded":      {Collection: annotationLayer, Value: crowded},
		everyCharacter: {Collection: expression, Value: fixture.Minimal(expression)},
		longest():      {Collection: expression, Value: fixture.Minimal(expression)},
		"..hidden":     {Collection: expression, Value: fixture.Minimal(expression)},
	} {
		write.Action, write.Rkey = record.Create, syntax.RecordKey(rkey)
		s.commit(s.did, write)
	}
}

// longest is a record key as long as it may be.
func longest() string { return strings.Repeat("long~key:", 512/9) + strings.Repeat("_", 512%9) }

// crowded is a layer with as many annotations as fit into a record.
func (s *submissions) crowded() map[string]any {
	layer := fixture.Minimal(annotationLayer)
	one := layer["annotations"].([]any)[0]
	fit := func(n int) int {
		layer["annotations"] = slices.Repeat([]any{one}, n)
		return len(s.block(layer))
	}
	each := (fit(3000) - fit(2000)) / 1000
	fit((maxRecord-fit(1000))/each + 1000)
	require.Less(s.t, maxRecord-len(s.block(layer)), 2*each)
	return layer
}

// hostile publishes blocks that are no valid record at all.
func (s *submissions) hostile() {
	nested := func(depth int) []byte { return append(bytes.Repeat([]byte{0x81}, depth), 0x00) }
	valid := s.block(fixture.Minimal(expression))
	for rkey, block := range map[string][]byte{
		"bad-utf8":         s.with([]byte{0x64, 'a', 0xc3, 0x28, 'b'}),
		"surrogate":        s.with([]byte{0x63, 0xed, 0xa0, 0x80}),
		"2-to-the-53":      s.with([]byte{0x1b, 0x00, 0x20, 0, 0, 0, 0, 0, 0}),
		"beyond-64-bits":   s.with([]byte{0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"below":            s.with([]byte{0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"float":            s.with([]byte{0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}),
		"nan":              s.with([]byte{0xf9, 0x7e, 0x00}),
		"undefined":        s.with([]byte{0xf7}),
		"not-shortest":     s.with([]byte{0x18, 0x05}),
		"indefinite":       s.with([]byte{0x9f, 0x00, 0xff}),
		"date-tag":         s.with([]byte{0xc1, 0x00}),
		"bad-link":         s.with([]byte{0xd8, 0x2a, 0x41, 0x00}),
		"duplicate-key":    s.with([]byte{0xa2, 0x61, 'k', 0x00, 0x61, 'k', 0x01}),
		"unsorted-keys":    s.with([]byte{0xa2, 0x61, 'l', 0x00, 0x61, 'k', 0x01}),
		"number-key":       s.with([]byte{0xa1, 0x01, 0x01}),
		"endless-array":    s.with([]byte{0x9b, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"endless-text":     s.with([]byte{0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"deep":             s.with(nested(100_000)),
		"trailing":         append(slices.Clone(valid), 0x00),
		"truncated":        valid[:len(valid)-3],
		"no-map":           {0x05},
		"empty-map":        {0xa0},
		"json":             []byte(`{"$type":"pub.layers.expression.expression"}`),
		"of-another-type":  s.block(fixture.Minimal(annotationLayer)),
		"zeros":            make([]byte, 4096),
		"just-a-break":     {0xff},
		"two-in-one-block": append(slices.Clone(valid), valid...),
	} {
		s.bar(syntax.RecordKey(rkey), block)
	}
}

// bar publishes a record that must be refused, and after it one that must not.
func (s *submissions) bar(rkey syntax.RecordKey, block []byte) {
	s.commit(s.did, simulate.Write{Action: record.Create, Collection: expression, Rkey: rkey, Block: block, Barred: true})
	s.letters[record.Key{DID: s.did, Collection: expression, Rkey: rkey}] = letter{path: anyPath}
	s.commit(s.did, simulate.Create(expression, "after-"+rkey, fixture.Minimal(expression)))
}

// sized is the block of a valid expression that has so many bytes.
func (s *submissions) sized(size int) []byte {
	s.t.Helper()
	block := s.with(text(strings.Repeat("m", size-len(s.with(text(""))))))
	require.Len(s.t, block, size)
	return block
}

func (s *submissions) refused() []record.Key {
	var keys []record.Key
	for key := range s.letters {
		keys = append(keys, key)
	}
	return keys
}

// forge publishes a commit that somebody else signed, on an account that has a
// record already, and returns the account.
func (s *submissions) forge() syntax.DID {
	did := s.account("victim")
	s.commit(did, simulate.Create(expression, "true", fixture.Minimal(expression)))
	_, err := s.CommitFaulty(did, simulate.ForgedSignature, simulate.Create(expression, "forged", fixture.Minimal(expression)),
		simulate.Delete(expression, "true"))
	require.NoError(s.t, err)
	return did
}

// frames puts what is no event between the last events.
func (s *submissions) frames(faults map[int64][][]byte) {
	garbage := make([]byte, 3000)
	dice := rand.New(rand.NewPCG(5, 5))
	for i := range garbage {
		garbage[i] = byte(dice.Uint32())
	}
	unknown := append([]byte{0xa2, 0x61, 't', 0x67, '#', 'f', 'u', 't', 'u', 'r', 'e', 0x62, 'o', 'p', 0x01}, 0xa0)
	earlier, err := s.Frames(10, 3)
	require.NoError(s.t, err)
	for i, before := range [][][]byte{
		{garbage},
		{{}},
		{make([]byte, maxFrame+1)},
		{earlier[0].Data[:len(earlier[0].Data)/2]},
		{unknown},
		{earlier[2].Data, earlier[1].Data}, // what has been, in the wrong order
	} {
		c := s.commit(s.did, simulate.Create(expression, syntax.RecordKey(fmt.Sprintf("after-frame-%d", i)), fixture.Minimal(expression)))
		faults[c.Seq] = before
	}
}

// discarded requires that a commit of the account was refused for its signature, and
// that its repository is in step all the same.
func (d *deployment) discarded(did syntax.DID, ix *rig.Process) {
	d.t.Helper()
	rig.Eventually(d.t, "the repository to be fetched", func() (bool, string) {
		var state string
		require.NoError(d.t, d.Database.QueryRow(d.t.Context(), "SELECT sync FROM repos WHERE did = $1", did).Scan(&state))
		return state == "synchronized", "it is " + state
	}, ix)
	require.Regexp(d.t, fmt.Sprintf(`repository is desynchronized" did=%s reason="signature: `, did), ix.Output())
}

// strict requires that malformed parameters are refused by name, and that unknown
// ones are ignored.
func (c *client) strict(did syntax.DID) {
	c.t.Helper()
	var page struct{ Records []view }
	list := syntax.NSID("pub.layers.expression.listExpressions")
	require.NoError(c.t, c.query(list, url.Values{"repo": {string(did)}, "surprise": {"1"}}, &page))
	for param, params := range map[string]url.Values{
		"repo":   {"repo": {string(did), string(did)}},
		"limit":  {"repo": {string(did)}, "limit": {"101"}},
		"cursor": {"repo": {string(did)}, "cursor": {"nonsense"}},
		"kind":   {"repo": {string(did)}, "kind": {"\xff"}},
	} {
		err := c.query(list, params, &page)
		var f *failure
		require.ErrorAs(c.t, err, &f, "%s", params.Encode())
		require.Equal(c.t, http.StatusBadRequest, f.status)
		require.Equal(c.t, "InvalidRequest", f.Name)
		require.Contains(c.t, f.Message, param)
	}
}
