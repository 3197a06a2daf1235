package catalog_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// expression is a record of some 500 bytes, as most are.
func expression() map[string]any {
	return map[string]any{
		"$type": "pub.layers.expression.expression", "id": "udhr-yo-1", "kind": "sentence", "createdAt": "2026-01-02T03:04:05.678Z",
		"text":      "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
		"languages": []any{"yo"}, "parentRef": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.expression.expression/3l6oveex3ii2l",
		"features": map[string]any{"entries": []any{map[string]any{"key": "source", "value": "Universal Declaration of Human Rights"}, map[string]any{"key": "article", "value": "1"}}},
	}
}

// layer is an annotation layer of n annotations, some 200 bytes each.
func layer(n int) map[string]any {
	annotations := make([]any, n)
	for i := range annotations {
		annotations[i] = map[string]any{
			"uuid":  map[string]any{"value": fmt.Sprintf("018f3b1e-7c2a-7000-8000-%012x", i)},
			"label": "NOUN", "value": "ènìyàn", "confidence": int64(i % 1000), "tokenIndex": int64(i),
			"anchor":          map[string]any{"textSpan": map[string]any{"byteStart": int64(i), "byteEnd": int64(i + 1)}},
			"ontologyTypeRef": fmt.Sprintf("at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.ontology.typeDef/t%d", i%40),
		}
	}
	return map[string]any{
		"$type": "pub.layers.annotation.annotationLayer", "kind": "token-tag", "createdAt": "2026-01-02T03:04:05.678Z",
		"expression": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.expression.expression/3l6oveex3ii2l", "annotations": annotations,
	}
}

func BenchmarkCheck(b *testing.B) {
	c := load(b)
	for name, value := range map[string]map[string]any{"record": expression(), "layer": layer(2200)} {
		key, block := encode(b, value)
		b.Run(fmt.Sprintf("%s-%dB", name, len(block)), func(b *testing.B) {
			checked, err := c.Check(key, block)
			require.NoError(b, err)
			require.NotEmpty(b, checked.Refs)
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Check(key, block)
			}
		})
	}
}

// BenchmarkCollection is what every op of every commit on the network is asked.
func BenchmarkCollection(b *testing.B) {
	c := load(b)
	key := record.Key{Collection: "app.bsky.feed.post"}
	for b.Loop() {
		_, _ = c.Collection(key.Collection)
	}
}
