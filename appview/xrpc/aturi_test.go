package xrpc

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"
)

var uriSeeds = []string{
	"", "at://", "at:///", "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/3lwafzkjqm25s",
	"at://did:web:a.example/a.b.c/~._:-Z9", "at://alice.test/a.b.c/self", "at://did:plc:x/a.b.c/.", "at://did:plc:x/a.b.c/..",
	"at://did:plc:x/a.b/c", "at://did:plc:x/a.b.c/", "at://did:plc:x/a.b.c", "at://did:plc:x/", "at://did:plc:x",
	"at://did:plc:x/a-b.c-d.e/f", "at://did:plc:x/1a.b.c/d", "at://did:plc:x/a.1b.c/d", "at://did:plc:x/a.b.1c/d", "at://did:plc:x/a..c/d",
	"at://did:plc:x/a.b.c/d/e", "at://did:plc:x/a.b.c/d#e", "at://did:plc:x/a.b.c/é", "at://did:plc:x/a.b.c/d\n", "AT://did:plc:x/a.b.c/d",
	"at://did:plc:x/a.b." + strings.Repeat("c", 63) + "/d", "at://did:plc:x/a.b." + strings.Repeat("c", 64) + "/d",
	"at://did:plc:x/a." + strings.Repeat("b.", 160) + "c/d", "at://did:plc:x/a.b.c/" + strings.Repeat("d", 512), "at://did:plc:x/a.b.c/" + strings.Repeat("d", 513),
}

func TestValidURIAgreesWithTheSyntaxPackage(t *testing.T) {
	t.Parallel()
	for _, text := range uriSeeds {
		_, err := syntax.ParseATURI(text)
		require.Equal(t, err == nil, validURI(text), "%q", text)
	}
}

func FuzzValidURI(f *testing.F) {
	for _, text := range uriSeeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := syntax.ParseATURI(text)
		require.Equal(t, err == nil, validURI(text), "%q", text)
		if err != nil {
			return
		}
		uri := syntax.ATURI(text)
		repo, collection, rkey := SplitURI(uri)
		require.Equal(t, uri.Authority(), repo)
		require.Equal(t, uri.Collection(), collection)
		require.Equal(t, uri.RecordKey(), rkey)
	})
}
