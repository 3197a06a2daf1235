package catalog_test

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

func TestLinksAreDIDsAndURIs(t *testing.T) {
	t.Parallel()
	c := load(t)
	block, err := atdata.MarshalCBOR(map[string]any{
		"$type": "pub.layers.expression.expression", "createdAt": "2026-01-01T00:00:00Z", "id": "https://example.org/not-a-link", "kind": "document",
		"sourceUrl": "https://example.org/a#b", "sourceRef": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/a",
		"knowledgeRefs": []any{
			map[string]any{"source": "wikidata", "identifier": "Q1", "uri": "http://www.wikidata.org/entity/Q1"},
			map[string]any{"source": "wikidata", "identifier": "Q2", "uri": "http://www.wikidata.org/entity/Q2"},
			map[string]any{"source": "wikidata", "identifier": "Q1", "uri": "http://www.wikidata.org/entity/Q1"},
		},
		"metadata": map[string]any{"tool": "t", "createdAt": "2026-01-01T00:00:00Z", "agent": map[string]any{"did": "did:web:annotator.example"}},
	})
	require.NoError(t, err)
	key := record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: "pub.layers.expression.expression", Rkey: "a"}
	checked, err := c.Check(key, block)
	require.NoError(t, err)
	require.ElementsMatch(t, []record.Link{
		{Path: "sourceUrl", Target: "https://example.org/a#b"},
		{Path: "knowledgeRefs[].uri", Target: "http://www.wikidata.org/entity/Q1"},
		{Path: "knowledgeRefs[].uri", Target: "http://www.wikidata.org/entity/Q2"},
		{Path: "metadata.agent.did", Target: "did:web:annotator.example"},
	}, checked.Links)
	require.Equal(t, []record.Ref{{Path: "sourceRef", Target: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/a"}}, checked.Refs)
}
