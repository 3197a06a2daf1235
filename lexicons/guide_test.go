package lexicons_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/lexicons"
)

var jsonBlock = regexp.MustCompile("(?s)```json\n(.*?)```")

func TestGuideExamplesAreValid(t *testing.T) {
	t.Parallel()
	cat := lexicon.NewBaseCatalog()
	require.NoError(t, cat.LoadEmbedFS(lexicons.FS))
	for _, example := range guideExamples(t) {
		nsid, _ := example["$type"].(string)
		assert.NoError(t, lexicon.ValidateRecord(cat, example, nsid, 0), nsid)
	}
}

// The example shows what a byte offset is, so its own have to be right.
func TestGuideExampleSpansQuoteTheText(t *testing.T) {
	t.Parallel()
	var text string
	quotes := 0
	for _, example := range guideExamples(t) {
		if example["$type"] == "pub.layers.expression.expression" {
			text = example["text"].(string)
		}
		for _, item := range spanned(example) {
			span := item.span
			assert.Equal(t, item.text, text[span["byteStart"].(int64):span["byteEnd"].(int64)])
			if _, ok := span["charStart"]; ok {
				assert.Equal(t, item.text, string([]rune(text)[span["charStart"].(int64):span["charEnd"].(int64)]))
			}
			quotes++
		}
	}
	require.Positive(t, quotes)
}

func TestGuideNamesEveryRecordType(t *testing.T) {
	t.Parallel()
	guide := readGuide(t)
	for id, file := range files(t) {
		if main := file.Defs["main"]; main != nil && main.Type == "record" {
			assert.Contains(t, guide, "| `"+strings.TrimPrefix(id, "pub.layers.")+"` |")
		}
	}
}

func readGuide(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "docs", "lexicons.md"))
	require.NoError(t, err)
	return string(raw)
}

// guideExamples returns the guide's JSON blocks as records, in order.
func guideExamples(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, block := range jsonBlock.FindAllStringSubmatch(readGuide(t), -1) {
		example, err := atdata.UnmarshalJSON([]byte(block[1]))
		require.NoError(t, err, block[1])
		out = append(out, example)
	}
	require.NotEmpty(t, out)
	return out
}

// quote is a text beside the span that it should be found at.
type quote struct {
	text string
	span map[string]any
}

// spanned finds every object in v that has a text and a textSpan, its own or its anchor's.
func spanned(v any) []quote {
	var out []quote
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			out = append(out, spanned(item)...)
		}
	case map[string]any:
		place := v
		if anchor, ok := v["anchor"].(map[string]any); ok {
			place = anchor
		}
		text, hasText := v["text"].(string)
		if span, ok := place["textSpan"].(map[string]any); ok && hasText {
			out = append(out, quote{text, span})
		}
		for _, child := range v {
			out = append(out, spanned(child)...)
		}
	}
	return out
}
