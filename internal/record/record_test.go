package record

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"
)

func TestParseKeyRoundTrips(t *testing.T) {
	uri := syntax.ATURI("at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/a~_.:-Z9")
	key, err := ParseKey(uri)
	require.NoError(t, err)
	require.Equal(t, uri, key.URI())
	require.Equal(t, "pub.layers.corpus.corpus/a~_.:-Z9", key.Path())
}

func TestParseKeyRefusesWhatNamesNoRecord(t *testing.T) {
	for _, uri := range []syntax.ATURI{
		"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus",
		"at://alice.test/pub.layers.corpus.corpus/abc",
	} {
		_, err := ParseKey(uri)
		require.ErrorIs(t, err, ErrNotRecord, uri)
	}
}

func TestFilterTermKeepsDistinctValuesDistinct(t *testing.T) {
	long := strings.Repeat("x", maxFilterTerm+1)
	values := []string{"", "span", "a\x00b", long, FilterTerm(long), FilterTerm("a\x00b")}
	seen := map[string]string{}
	for _, v := range values {
		term := FilterTerm(v)
		require.LessOrEqual(t, len(term), maxFilterTerm)
		require.NotContains(t, term, "\x00")
		require.NotContains(t, seen, term, "%q and %q share a term", v, seen[term])
		seen[term] = v
	}
	require.Equal(t, "span", FilterTerm("span"))
}
