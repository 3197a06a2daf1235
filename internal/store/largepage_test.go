package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

// TestLargeRecordsMakeShortPages walks over more megabytes than a page may have:
// every record comes once, and no page has much more than its bound.
func TestLargeRecordsMakeShortPages(t *testing.T) {
	t.Parallel()
	const records, size, bound = 40, 1_000_000, 16 << 20
	w := newWorld(t)
	for i := range records {
		c := put(key(alice, expressions, fmt.Sprintf("r%03d", i)), 1)
		c.JSON = json.RawMessage(`{"text":"` + strings.Repeat("x", size) + `"}`)
		w.apply(c)
	}
	seen, pages := map[string]bool{}, 0
	for query := (store.Query{Collection: expressions, Limit: 100}); ; pages++ {
		page, err := w.reader.List(t.Context(), query)
		require.NoError(t, err)
		bytes := 0
		for _, r := range page.Records {
			require.False(t, seen[string(r.Key.Rkey)])
			seen[string(r.Key.Rkey)] = true
			bytes += len(r.Value)
		}
		require.Less(t, bytes, bound+2*size)
		if query.After = page.Next; page.Next == nil {
			break
		}
	}
	require.Len(t, seen, records)
	require.Equal(t, 2, pages, "pages before the last")
}
