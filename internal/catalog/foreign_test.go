package catalog_test

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
)

func TestFollow(t *testing.T) {
	t.Parallel()
	c, err := catalog.Load()
	require.NoError(t, err)
	require.NoError(t, c.Follow("app.bsky.feed.post", "org.example.*", "pub.layers.*"))
	for nsid, foreign := range map[syntax.NSID]bool{
		"app.bsky.feed.post": true, "org.example.thing": true, "org.example.deep.down.thing": true, "pub.layers.corpus.novel": true, "pub.layers.corpus.corpus": false,
	} {
		collection, ok := c.Collection(nsid)
		require.True(t, ok, nsid)
		assert.Equal(t, nsid, collection.NSID)
		assert.Equal(t, foreign, collection.Foreign, nsid)
		assert.Equal(t, foreign, collection.Schema == nil, nsid)
	}
	post, _ := c.Collection("app.bsky.feed.post")
	assert.Equal(t, "feed", post.Namespace)
	assert.Equal(t, "post", post.Name)
	for _, nsid := range []syntax.NSID{"app.bsky.feed.like", "app.bsky.feed.post.x", "org.examples.thing", "org.example", "org.example.", "org.example.not an NSID", "org.example./x"} {
		_, ok := c.Collection(nsid)
		assert.False(t, ok, nsid)
	}
	assert.Len(t, c.Collections(), 26)
	for _, name := range []string{"", "*", "app.*", "app.bsky*", "app.bsky.feed.*.x", "not an NSID", "app.bsky.feed.post "} {
		assert.Error(t, c.Follow(name), name)
	}
}

func TestForeignRecords(t *testing.T) {
	t.Parallel()
	checked, err := check(t, loose(t), map[string]any{
		"$type": string(anything), "createdAt": "2026-01-02T03:04:05Z",
		"subject": map[string]any{"uri": "at://did:plc:abc/app.bsky.feed.post/1", "cid": "x"},
		"list":    []any{"at://did:plc:abc/app.bsky.feed.post/1", []any{"at://name.example/a.b.c"}, "at://did:plc:abc/app.bsky.feed.post/1", "see at://did:plc:abc/a.b.c/d", "at://did:plc:abc", "at://"},
		"odd.key": map[string]any{"": "at://did:plc:abc/a.b.c/x"},
		"after":   "at://did:plc:abc/a.b.c/y",
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{}, checked.Filter)
	assert.ElementsMatch(t, []record.Ref{
		{Path: "subject.uri", Target: "at://did:plc:abc/app.bsky.feed.post/1"},
		{Path: "list[]", Target: "at://did:plc:abc/app.bsky.feed.post/1"},
		{Path: "list[][]", Target: "at://name.example/a.b.c"},
		{Path: `["odd.key"][""]`, Target: "at://did:plc:abc/a.b.c/x"},
		{Path: "after", Target: "at://did:plc:abc/a.b.c/y"},
	}, checked.Refs)
	assert.Equal(t, 2026, checked.CreatedAt.Year())
}
