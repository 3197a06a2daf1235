package catalog_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Whatever the bytes, Check ends without panic; what it accepts comes back from
// its JSON as it was, refers to valid AT-URIs and can be filtered by; what it
// refuses says why in a form that can be kept and shown.
func FuzzCheck(f *testing.F) {
	c, _ := withOperator(f)
	require.NoError(f, c.Follow(string(anything)))
	collections := []syntax.NSID{anything}
	r := rand.New(rand.NewPCG(7, 8))
	for i, collection := range c.Collections() {
		collections = append(collections, collection.NSID)
		for depth := range 3 {
			value := valueOf(r, collection.Schema, depth).(map[string]any)
			value["$type"] = string(collection.NSID)
			_, block := encode(f, value)
			f.Add(byte(i+1), block)
		}
	}
	f.Add(byte(0), wrap(strings.Repeat("\x81", 40)))
	f.Add(byte(0), wrap("\xbb\x80\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(byte(0), []byte("\xa1\x65$type\x64blob"))
	f.Add(byte(0), []byte(nil))
	for range 20 {
		value := anyObject(r, 3)
		value["$type"] = string(anything)
		_, block := encode(f, value)
		f.Add(byte(0), block)
	}
	f.Fuzz(func(t *testing.T, which byte, block []byte) {
		collection := collections[int(which)%len(collections)]
		checked, err := c.Check(keyIn(collection), block)
		if err != nil {
			presentable(t, err)
			return
		}
		require.Equal(t, block, fromJSON(t, checked.JSON))
		for _, ref := range checked.Refs {
			_, err := syntax.ParseATURI(string(ref.Target))
			require.NoError(t, err)
			require.NotContains(t, ref.Path, "\x00")
		}
		filter, err := json.Marshal(checked.Filter)
		require.NoError(t, err)
		require.NotContains(t, string(filter), `\u0000`)
	})
}

func presentable(t *testing.T, err error) {
	var invalid *catalog.Invalid
	require.True(t, errors.As(err, &invalid), "%v", err)
	require.NotEmpty(t, invalid.Reason)
	for _, part := range []string{invalid.Path, invalid.Reason, invalid.Expected, invalid.Received} {
		require.Less(t, len(part), 16_000)
		for _, r := range part {
			require.True(t, r >= 0x20 && r < 0x7f, "%q", part)
		}
	}
}
