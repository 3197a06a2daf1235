package catalog

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The short cuts never say yes where the protocol's parsers say no, and for
// record keys never no where they say yes.
func TestShortCutsAgreeWithTheParsers(t *testing.T) {
	t.Parallel()
	c, err := Load()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(9, 10))
	usual := "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/3l6oveex3ii2l"
	require.True(t, c.isUsualURI(usual))
	const odd = "abz019AZ./:-_~%#? \x00\xc3\n@"
	taken := 0
	for range 50_000 {
		changed := []byte(usual)
		for range r.IntN(3) {
			at := r.IntN(len(changed))
			changed[at] = odd[r.IntN(len(odd))]
			if r.IntN(3) == 0 {
				changed = changed[:at+1]
			}
		}
		text := string(changed)
		if c.isUsualURI(text) {
			taken++
			_, err := syntax.ParseATURI(text)
			require.NoError(t, err)
		}
		_, rkey, _ := strings.Cut(text, "corpus.corpus/")
		_, err := syntax.ParseRecordKey(rkey)
		require.Equal(t, err == nil, isRecordKey(rkey), "%q", rkey)
	}
	assert.Greater(t, taken, 10_000)
	for _, length := range []int{1, 2, 511, 512, 513} {
		rkey := strings.Repeat(".", length)
		_, err := syntax.ParseRecordKey(rkey)
		assert.Equal(t, err == nil, isRecordKey(rkey), length)
		assert.Equal(t, err == nil, c.isUsualURI("at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/"+rkey), length)
	}
}
