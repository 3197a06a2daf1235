package search_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
)

// BenchmarkWrite stores annotation layers of ten nested objects each, in batches
// of 500, one batch an iteration. It reports what the server takes a second.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 2} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { benchmarkWrite(b, writers) })
	}
}

func benchmarkWrite(b *testing.B, writers int) {
	client := searchtest.New(b)
	_, err := client.Ensure(b.Context(), []search.Mapping{mapping()})
	require.NoError(b, err)
	batches := make(chan []search.Document, b.N)
	size := 0
	for i := range b.N {
		batch := make([]search.Document, 500)
		for j := range batch {
			body := `{"text":"The quick brown fox jumps over the lazy dog","kind":"span","count":3,"items":[{"label":"DET","start":0}`
			for k := range 9 {
				body += fmt.Sprintf(`,{"label":"NOUN","start":%d}`, i+j+k)
			}
			batch[j] = document(fmt.Sprint("r", i, "-", j), 1, body+`]}`)
			size += len(batch[j].Body)
		}
		batches <- batch
	}
	close(batches)
	b.ResetTimer()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for batch := range batches {
				if err := client.Write(b.Context(), batch); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.SetBytes(int64(size / b.N))
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "documents/s")
}
