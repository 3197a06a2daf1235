package task

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// BenchmarkTargets takes records of all types, by turns, from the outbox into one
// projection after another.
func BenchmarkTargets(b *testing.B) {
	const records = 10_400
	for _, target := range targets {
		b.Run(string(target), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b)
				for range records / 520 {
					w.create(520)
				}
				rows := w.depth(target)
				cfg := Config{RedisURL: w.redisURL, Targets: []record.Target{target}, Logger: w.config().Logger}
				b.StartTimer()
				began := time.Now()
				stop := w.run(cfg)
				w.settled(target)
				b.ReportMetric(float64(rows)/time.Since(began).Seconds(), "records/s")
				b.StopTimer()
				stop()
				letters, err := w.stores.DeadLetters.List(b.Context(), store.LetterFilter{Stage: Stage(target)}, 0, 1)
				require.NoError(b, err)
				require.Empty(b, letters)
				b.StartTimer()
			}
		})
	}
}
